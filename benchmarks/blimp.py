"""Minimal pairs: this project's scoring beside a plain loop and beside a batch a sentence, on the same encoder.

    python -m benchmarks.blimp ENCODER FOLDER [--pairs 360] [--plain-pairs 12] [--rounds 3]

FOLDER holds BLiMP's *.jsonl; every n-th pair is taken, so that all paradigms come. Contenders, interleaved in one process, with
the same threads; medians of the rounds:

- `plain`: transformers, one sentence and one masked position a forward pass, float32, as the definition reads;
- `sentence`: transformers, all masked copies of a sentence as one batch, float32: what scripts for this usually do;
- `fp32`, `bf16`: roberta_core.pseudo_likelihood alone;
- `command`: what `roberta blimp` does, tokenising included: bf16, and close pairs again in fp32.

The plain loop takes minutes for what the others do in seconds, so it scores fewer of the pairs; rates are pairs a second.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from roberta_core.device import set_threads
from roberta_core.inference import EncoderModel
from roberta_core.minimal_pairs import Pair, read_pairs, score_pairs
from roberta_core.pseudo_likelihood import Encoded, encode, masked_rows, pseudo_log_likelihoods


def main() -> None:
    """Prints the table, and how far the sums and the decisions are from the plain loop's."""
    from transformers import AutoModelForMaskedLM

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=360)
    parser.add_argument("--plain-pairs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    threads = set_threads(0)
    ours = EncoderModel(asked.encoder, "cpu")
    theirs = AutoModelForMaskedLM.from_pretrained(asked.encoder).eval()
    mask = ours.tokenizer.token_to_id(ours.mask)
    pairs, _ = read_pairs([asked.folder])

    def chosen(count: int) -> list[Pair]:
        return pairs[:: max(1, len(pairs) // count)][:count]

    def encoded(some: list[Pair]) -> list[Encoded]:
        return encode(ours.tokenizer, [text for pair in some for text in (pair.good, pair.bad)])

    @torch.inference_mode()
    def plain(rows: list[Encoded]) -> np.ndarray:
        sums = np.zeros(len(rows))
        for number, row in enumerate(rows):
            for at in row.places:
                ids = torch.tensor([row.ids])
                ids[0, at] = mask
                sums[number] += theirs(ids).logits[0, at].log_softmax(-1)[row.ids[at]].item()
        return sums

    @torch.inference_mode()
    def sentence(rows: list[Encoded]) -> np.ndarray:
        sums = np.zeros(len(rows))
        for number, row in enumerate(rows):
            ids, places, targets = masked_rows([row], mask)
            logits = theirs(ids).logits[torch.arange(len(ids)), places].log_softmax(-1)
            sums[number] = logits.gather(1, targets[:, None]).double().sum().item()
        return sums

    def by(precision: str) -> Callable[[list[Encoded]], np.ndarray]:
        return lambda rows: pseudo_log_likelihoods(ours.model, ours.tokenizer, rows, precision)

    def command(rows: list[Encoded]) -> None:
        scored.append(score_pairs(ours.model, ours.tokenizer, chosen(asked.pairs))[0][-1].accuracy)

    contenders = {"plain": plain, "sentence": sentence, "fp32": by("fp32"), "bf16": by("bf16"), "command": command}
    few, many = encoded(chosen(asked.plain_pairs)), encoded(chosen(asked.pairs))
    scored: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    sums: dict[str, np.ndarray | None] = {}
    for _ in range(asked.rounds):
        for name, score in contenders.items():
            rows = few if name == "plain" else many
            begin = time.perf_counter()
            sums[name] = score(rows)
            rates[name].append(len(rows) / 2 / (time.perf_counter() - begin))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print(f"{len(many) // 2} pairs ({len(few) // 2} in the plain loop), {threads} threads, {asked.rounds} rounds")
    for name, found in rates.items():
        times = f"{medians[name] / medians['plain']:.1f} × plain, {medians[name] / medians['sentence']:.2f} × sentence"
        print(f"{name:9} {medians[name]:7.1f} pairs/s ({min(found):.1f} to {max(found):.1f}), {times}")
    print(f"fp32 against the plain loop: {np.abs(by('fp32')(few) - sums['plain']).max():.1e} nats at most")
    exact, rounded = (sums[name][::2] - sums[name][1::2] for name in ("fp32", "bf16"))
    other = (exact > 0) != (rounded > 0)
    off = np.std(sums["bf16"] - sums["fp32"])
    print(f"bf16 against fp32: a sentence's sum off by {off:.3f} nats (standard deviation)")
    print(f"{other.sum()} of {len(other)} pairs decided otherwise; the command: {scored[-1]:.4f}", end="; ")
    print(f"accuracy in fp32 {(exact > 0).mean():.4f}, in bf16 {(rounded > 0).mean():.4f}")


if __name__ == "__main__":
    main()
