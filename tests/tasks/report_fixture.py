"""A finished run, as the stages leave it: small files with plausible numbers, for the summary and the report."""

import csv
import math
import re
import shutil
from pathlib import Path

import pyarrow as pa

from roberta_core.atomic import write_json
from tasks.averages import DEV_ROWS

ROOT = Path(__file__).parents[2]
TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "RTE", "WNLI", "QNLI", "QQP", "MNLI")
METRICS = {"CoLA": "mcc", "STS-B": "pearson"}
ALSO = {"CoLA": "accuracy", "STS-B": "spearman", "MRPC": "f1", "QQP": "f1", "MNLI": "accuracy_mismatched"}
SCORES = dict(zip(TASKS, (0.4312, 0.7123, 0.8034, 0.6645, 0.5912, 0.5634, 0.6898, 0.7511, 0.4823)))
TFIDF = dict(zip(TASKS, (0.0213, 0.7311, 0.7042, 0.3121, 0.5333, 0.5211, 0.5542, 0.7022, 0.4011)))
MAJORITY = dict(zip(TASKS, (0.0, 0.5021, 0.6, 0.0, 0.5, 0.5634, 0.5, 0.5, 0.3412)))
HOSTILE = "<script>alert('corpus')</script> & <img src=x onerror=alert(1)>"

# source: found, read, clean, unique
DOCUMENTS = {"python-docs": (41_230, 41_102, 22_840, 17_315), "notes": (8_204, 8_204, 7_611, 7_480)}
HELD_OUT = 512
OVERVIEW = [
    {
        "name": "roberta-encoder",
        "version": "3",
        "alias": "challenger, champion",
        "score": 0.6407,
        "measure": "mean score",
        "data": "sample",
        "run_id": "0123456789abcdef",
        "run_url": "http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef",
        "promoted": "promoted: mean score 0.6407 against the champion's 0.6220, a gain of +0.0187",
    },
    {
        "name": "roberta-cola",
        "version": "2",
        "alias": "challenger",
        "score": None,
        "measure": "mcc",
        "data": "sample",
        "run_id": "fedcba9876543210",
        "run_url": "javascript:alert(1)",
        "promoted": "not promoted: mcc 0.4312 against the champion's 0.4400, a gain of -0.0088",
    },
]


def funnel(seen: int, dropped: dict[str, int], chars: int, examples: dict[str, list[str]] | None = None) -> dict:
    """A funnel.json."""
    kept = seen - sum(dropped.values())
    return {"seen": seen, "kept": kept, "chars": chars, "dropped": dropped, "changed": {}, "examples": examples or {}}


def write_arrow(path: Path, columns: dict[str, pa.Array]) -> None:
    """One Arrow IPC file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _documents(root: Path, example: str) -> None:
    unique_total, clean_total = 0, 0
    for source, (found, read, clean, unique) in DOCUMENTS.items():
        unreadable = {"not_utf8": found - read} if found > read else {}
        raw = funnel(found, unreadable, read * 700, {"not_utf8": ["\\xff\\xfe"]} if unreadable else {})
        write_json(root / f"data/raw/{source}/funnel.json", raw)
        symbols = (read - clean) // 6
        reasons = {"too_short": read - clean - symbols, "too_many_symbols": symbols}
        examples = {
            "too_short": [example, "See also the module index."],
            "too_many_symbols": ["+---+---+ | a | b | +---+---+"],
        }
        clean_funnel = funnel(read, reasons, clean * 900, examples) | {"changed": {"control_characters": 37}}
        write_json(root / f"data/clean/{source}/funnel.json", clean_funnel)
        keep = pa.array([True] * unique + [False] * (clean - unique))
        write_arrow(root / f"data/dedup/keep-{source}.arrow", {"keep": keep})
        clean_total, unique_total = clean_total + clean, unique_total + unique
    lost = clean_total - unique_total
    dropped = {"exact_duplicate": lost // 3, "near_duplicate": lost - lost // 3}
    examples = {"near_duplicate": ["Return a copy of the array, flattened."]}
    write_json(root / "data/dedup/funnel.json", funnel(clean_total, dropped, unique_total * 900, examples))
    write_json(root / "data/shards/funnel.json", funnel(unique_total, {}, unique_total * 900))
    write_json(
        root / "metrics/shard.json",
        {
            "seen": unique_total,
            "kept": unique_total,
            "chars": unique_total * 900,
            "train_documents": unique_total - HELD_OUT,
            "validation_documents": HELD_OUT,
        },
    )


def _pretrain(root: Path) -> None:
    def curve(step: int) -> float:
        return 6.62 + 2.4 * math.exp(-step / 60) + 0.45 / (1 + math.exp((step - 330) / 60))

    (root / "plots").mkdir(parents=True, exist_ok=True)
    with open(root / "plots/pretrain.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "lr"])
        for step in range(10, 901, 10):
            lr = 1e-3 * min(1, step / 50) * (1 if step < 600 else (900 - step) / 300)
            rows.writerow([step, round(curve(step) + 0.12 * math.sin(step * 12.9898), 4), round(lr, 8)])
    with open(root / "plots/validation.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "accuracy"])
        for step in range(100, 901, 100):
            rows.writerow([step, round(curve(step), 4), round(0.045 + 0.13 / (1 + math.exp(-(step - 400) / 90)), 4)])
    write_json(
        root / "metrics/pretrain.json",
        {
            "steps": 900,
            "tokens": 1_843_200,
            "loss": 6.6213,
            "accuracy": 0.1743,
            "perplexity": 750.9,
            "unigram_entropy": 7.3127,
            "gain_over_unigram": 0.6914,
            "train_loss": 6.6402,
            "parameters": 5_317_888,
            "on_plateau": 0,
        },
    )


def _glue(root: Path, data: str) -> None:
    for task in TASKS:
        metric = METRICS.get(task, "accuracy")
        seeds = {"1": SCORES[task], "2": SCORES[task] - 0.031, "3": SCORES[task] + 0.027}
        write_json(
            root / f"models/glue/{task}/results.json",
            {
                "task": task,
                "data": data,
                "metric": metric,
                "score": SCORES[task],
                "metrics": {metric: SCORES[task]} | ({ALSO[task]: 0.8125} if task in ALSO else {}),
                "seeds": seeds,
                "protocol": {
                    "seeds": [1, 2, 3],
                    "epochs": 2,
                    "steps": 64,
                    "peak_lr": 1e-4,
                    "batch_size": 32,
                    "split": "dev",
                    "staged_from_mnli": False,
                    "selection": "last epoch; median over seeds",
                },
                "rows": {
                    "train": 1000,
                    "dev": 250 if data == "sample" else DEV_ROWS[task],
                    "test": 250,
                },
                "truncated": 12,
                "baselines": {"majority": {metric: MAJORITY[task]}, "tfidf": {metric: TFIDF[task]}},
                "notes": [],
                "description": f"how the rows of {task} are made",
                "label_names": [] if task == "STS-B" else ["0", "1"],
            },
        )


def _logs(root: Path) -> None:
    seconds = {
        "download-python-docs": 21.4,
        "download-notes": 3.2,
        "clean-python-docs": 17.8,
        "clean-notes": 4.1,
        "dedup": 3.9,
        "shard": 2.2,
        "tokenizer": 5.3,
        "pack": 6.2,
        "pretrain": 151.2,
        "taskdata": 4.0,
        **{f"glue-{task}": 11.5 + 2 * len(task) for task in TASKS},
        "summary": 0.4,
    }
    for stage, took in seconds.items():
        write_json(root / f"logs/{stage}.timing.json", {"seconds": took, "peak_mb": 180.0 + 11 * took})
    write_json(
        root / "logs/pretrain.speed.json",
        {"tokens_per_s": 12_391.4, "tflops": 0.3187, "device": "cpu", "threads": 2, "precision": "bf16"},
    )


def finished_run(root: Path, example: str = "Deprecated alias.", data: str = "sample") -> Path:
    """Writes a whole finished run under `root`; `example` is the excerpt of a dropped document. Returns `root`."""
    params = (ROOT / "presets/quickstart.yaml").read_text(encoding="utf8")
    params = params.replace("  sources:\n", "  sources:\n    notes:\n      kind: files\n      path: notes\n")
    root.mkdir(parents=True, exist_ok=True)
    params = re.sub(r"max_steps: \d{3,}", "max_steps: 900", params)  # the curves of this fixture have 900 steps
    (root / "params.yaml").write_text(params, encoding="utf8")
    shutil.copy(ROOT / "dvc.yaml", root)
    (root / "models/tasks").mkdir(parents=True, exist_ok=True)
    _documents(root, example)
    measured = {"bytes_per_token": 3.9123, "tokens_per_word": 1.8765, "unknown_share": 0.0}
    write_json(root / "metrics/tokenizer.json", {"vocab_size": 8192, **measured})
    packed = {"train_rows": 47_577, "train_fill": 0.99998}
    write_json(root / "metrics/pack.json", {"train_tokens": 6_090_112, "validation_tokens": 123_772, **packed})
    _pretrain(root)
    _glue(root, data)
    _logs(root)
    return root


def with_encoder(root: Path) -> Path:
    """Adds a tiny encoder that knows nothing, and held-out documents for it to guess at. Returns `root`."""
    from roberta_core.data.documents import Document, write_shards
    from roberta_core.data.tokenizer import save_tokenizer, train_tokenizer
    from roberta_core.model import RobertaConfig, RobertaForMaskedLM

    words = (
        "array",
        "value",
        "returns",
        "method",
        "given",
        "object",
        "string",
        "number",
        "table",
        "first",
        "second",
        "index",
    )
    texts = [
        " ".join(
            f"The {words[(i + j) % 12]} of the {words[(5 * i + j) % 12]} is {words[(7 * i) % 12]} and never empty."
            for j in range(4)
        )
        for i in range(40)
    ]
    encoder = root / "models/encoder"
    tokenizer = train_tokenizer(texts, 310, 2)
    RobertaForMaskedLM(RobertaConfig.named("tiny", tokenizer.get_vocab_size(), 64, 0.0), 1).save_pretrained(encoder)
    save_tokenizer(tokenizer, encoder, 64)
    documents = [Document(text, "notes", f"{i:032x}") for i, text in enumerate([*texts, f"{HOSTILE} is given."])]
    write_shards(documents, root / "data/shards/validation", 1)
    return root
