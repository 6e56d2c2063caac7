"""What it costs to keep the documents of packed rows apart, on a CPU: forward and backward passes, interleaved.

    python -m benchmarks.isolation [threads]

Three ways to train on the same documents, RoBERTa mini, bf16, no dropout, 4,096 tokens an update:

- dense: the documents of a row see one another; what `full-sentences` costs.
- block mask: what training does with best-fit rows (`roberta_core.model.isolation`).
- a row each: every document in a row of its own, padded to the longest; what isolation costs without packing.

Prints the median of eight rounds in milliseconds, and the ratio to dense.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.model.isolation import isolate

ROUNDS, VOCAB, EVERY = 9, 16_384, 7  # a token in seven is predicted, as at 15 %
SHAPES = ((128, 32, 4), (512, 8, 7))
"""Length, rows, documents a row."""


def made_up(length: int, rows: int, documents: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and documents of full rows, cut at random places."""
    draw = np.random.default_rng(0)
    cuts = [np.sort(draw.choice(np.arange(8, length - 8), documents - 1, replace=False)) for _ in range(rows)]
    numbers = np.stack([np.searchsorted(cut, np.arange(length), side="right") for cut in cuts]).astype(np.int32)
    return torch.from_numpy(draw.integers(4, VOCAB - 1, (rows, length))), torch.from_numpy(numbers)


def update(
    model: RobertaForMaskedLM,
    tokens: torch.Tensor,
    mask: torch.Tensor | None = None,
    numbers: torch.Tensor | None = None,
    at: torch.Tensor | None = None,
) -> None:
    """Forward and backward; `numbers`: the documents to keep apart, `at`: the predicted places."""
    at = torch.arange(0, tokens.numel(), EVERY) if at is None else at
    apart = None if numbers is None else isolate(numbers, model.config.pad_token_id)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = model(tokens, mask, at, tokens.flatten()[at], isolation=apart)
    loss.backward()
    model.zero_grad()


def main(threads: int = 2) -> None:
    """Measures and prints."""
    torch.set_num_threads(threads)
    for length, rows, documents in SHAPES:
        model = RobertaForMaskedLM(RobertaConfig.named("mini", VOCAB, length, 0.0)).train()
        ids, numbers = made_up(length, rows, documents)
        alone = [ids[row, numbers[row] == each] for row in range(rows) for each in range(documents)]
        padded = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True, padding_value=model.config.pad_token_id)
        real = padded.ne(model.config.pad_token_id)

        predicted = real.flatten().nonzero()[::EVERY, 0]
        ways: dict[str, Callable[[], None]] = {
            "dense": partial(update, model, ids),
            "block mask": partial(update, model, ids, numbers=numbers),
            "a row each": partial(update, model, padded, mask=real, at=predicted),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                if number:  # the first one sets things up
                    taken[name].append(time.perf_counter() - started)
        dense = statistics.median(taken["dense"])
        print(f"length {length}, {rows} rows, {documents} documents a row:")
        for name, seconds in taken.items():
            middle = statistics.median(seconds)
            print(f"  {name:10} {1e3 * middle:7.1f} ms  {middle / dense:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
