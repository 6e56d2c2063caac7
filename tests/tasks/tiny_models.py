"""Tiny Hugging Face folders, and a project folder around them, for the tests of the registry."""

import json
import shutil
from pathlib import Path

import numpy as np

from roberta_core.data.tokenizer import save_tokenizer, train_tokenizer
from roberta_core.model import RobertaConfig, RobertaForMaskedLM, RobertaForSequenceClassification
from tasks.params import Params
from tasks.params_file import load_params

REPO = Path(__file__).parents[2]


def tiny_encoder(folder: Path, seed: int = 1) -> Path:
    tokenizer = train_tokenizer(["the cat sat on the mat, and the dog ran after it. "] * 50, 280, 2)
    RobertaForMaskedLM(RobertaConfig.named("tiny", 280, 48, 0.0), seed).save_pretrained(folder)
    save_tokenizer(tokenizer, folder, 48)
    return folder


def tiny_classifier(folder: Path, encoder: Path, labels: list[str], seed: int = 1) -> Path:
    regression = len(labels) == 1
    RobertaForSequenceClassification.from_pretrained(
        encoder,
        num_labels=len(labels),
        problem_type="regression" if regression else "single_label_classification",
        id2label=dict(enumerate(labels)),
        seed=seed,
    ).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder / name, folder)
    return folder


def write_results(root: Path, task: str, score: float, data: str = "sample", dev: str = "a\tb\n", **protocol) -> None:
    """Scores of a task with predictions that have about this score, and the dev file they were measured on.

    Of 400 dev rows, half of each class, as many are wrong as Matthews' coefficient asks for; STS-B gets its correlation
    by noise. Predictions of other scores are wrong on other rows.
    """
    whole = {"split": "dev", "seeds": [1], "epochs": 2, "selection": "last epoch; median over seeds"} | protocol
    metric = "pearson" if task == "STS-B" else "mcc"
    results = {"task": task, "data": data, "metric": metric, "score": score, "seeds": {"1": score}, "protocol": whole}
    folder = root / "models" / "glue" / task
    (folder / "results.json").write_text(json.dumps(results))
    rng = np.random.default_rng(round(1000 * score))
    if metric == "pearson":
        labels = rng.normal(size=400)
        guesses = score * labels + (1 - score**2) ** 0.5 * rng.normal(size=400)
        rows = [(f"{label:.3f}", f"{guess:.3f}") for label, guess in zip(labels, guesses)]
    else:
        names, wrong = ("unacceptable", "acceptable"), round(200 * (1 - score) / 2)
        order = [rng.permutation(200) for _ in names]
        rows = [(names[side], names[side ^ bool(order[side][row] < wrong)]) for row in range(200) for side in (0, 1)]
    lines = ["index\tlabel\tprediction", *(f"{index}\t{a}\t{b}" for index, (a, b) in enumerate(rows))]
    (folder / "dev_predictions.tsv").write_text("\n".join(lines) + "\n")
    file = root / "data" / "glue" / task / "dev.tsv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dev)


def tiny_project(root: Path) -> Params:
    """A project with an encoder, a classifier for CoLA and a regressor for STS-B, all of them tiny and untrained."""
    root.mkdir(parents=True)
    text = (REPO / "params.yaml").read_text()
    lines = ["  tasks: [CoLA, STS-B]" if line.startswith("  tasks: [") else line for line in text.splitlines()]
    (root / "params.yaml").write_text("\n".join(lines))
    encoder = tiny_encoder(root / "models" / "encoder")
    tiny_classifier(root / "models" / "glue" / "CoLA", encoder, ["unacceptable", "acceptable"])
    tiny_classifier(root / "models" / "glue" / "STS-B", encoder, ["similarity"])
    write_results(root, "CoLA", 0.4)
    write_results(root, "STS-B", 0.6)
    return load_params(root / "params.yaml")
