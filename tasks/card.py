"""The model card: a README.md with YAML front matter, as the Hugging Face hub reads it.

Every number comes from the files beside the weights (`training.json`, `results.json`) or from the weights themselves; what is
not known is not there, and no text is put in its place. A score never stands without its data and its protocol.
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from roberta_core.atomic import atomic_file
from roberta_core.model import RobertaConfig

CLASSIFIER = "RobertaForSequenceClassification"
TUNED = {
    CLASSIFIER: ("AutoModelForSequenceClassification", "text-classification", "classifier"),
    "RobertaForTokenClassification": ("AutoModelForTokenClassification", "token-classification", "tagger"),
    "RobertaForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering", "model of questions"),
}
"""Fine-tuned models: who loads them in `transformers`, what the hub calls their task, and what they are."""

LOSSES = {
    "loss": "held-out masked loss (nats)",
    "perplexity": "held-out perplexity",
    "accuracy": "held-out masked accuracy",
    "unigram_entropy": "unigram entropy of the same tokens (nats)",
}


@dataclass
class Facts:
    """What is known of a model.

    Attributes:
        config: its configuration.
        architecture: the class in `transformers`.
        weights_sha256: of `model.safetensors`.
        training: content of `training.json`; empty where nothing is known of it.
        results: content of `results.json`, of a classifier; else empty.
        lineage: where it comes from, by name.
        sources: md5 of the documents of each source that it was pretrained on.
        base_model: its name on the hub, if it comes from there.
    """

    config: RobertaConfig
    architecture: str
    weights_sha256: str
    training: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    lineage: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    base_model: str = ""


def _scores(facts: Facts) -> dict[str, float]:
    results = facts.results
    return results.get("metrics") or {results["metric"]: results["score"]} if results else {}


def _data_name(facts: Facts) -> str:
    """`GLUE CoLA`, or for tasks made from the corpus what they are: not GLUE."""
    kind, task = facts.results["data"], facts.results["task"]
    if kind == "own":
        return f"own task {task}"
    return (
        f"GLUE {task}" if kind != "sample" else f"sample task in the form of {task}, made from the corpus (not GLUE)"
    )


def front_matter(facts: Facts) -> dict:
    """The fields that the hub knows, without those that nothing is known of."""
    pipeline = TUNED[facts.architecture][1] if facts.architecture in TUNED else "fill-mask"
    result: dict = {
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "tags": ["roberta"],
    }
    if facts.base_model:
        result["base_model"] = facts.base_model
    metrics, name, data, task = {}, "", "", {}
    if facts.results:
        metrics, data = _scores(facts), _data_name(facts)
        name, task = facts.results["task"], {"type": pipeline, "name": facts.results["task"]}
    elif "loss" in facts.training:
        metrics = {key: facts.training[key] for key in LOSSES if key in facts.training}
        name, data, task = "encoder", "held-out text of the corpus", {"type": "fill-mask", "name": "masked tokens"}
    if metrics:
        listed = [{"type": key, "value": value} for key, value in metrics.items()]
        dataset = {"name": data, "type": data, "split": facts.results.get("protocol", {}).get("split", "validation")}
        result["model-index"] = [
            {"name": name, "results": [{"task": task, "dataset": dataset, "metrics": listed}]},
        ]
    return result


def _table(head: tuple[str, str], rows: dict) -> list[str]:
    shown = [f"| {key} | {_cell(value)} |" for key, value in rows.items() if value is not None and value != ""]
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *shown, ""] if shown else []


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _section(title: str, *parts: list[str]) -> list[str]:
    inside = [line for part in parts for line in part]
    return [f"## {title}", "", *inside] if inside else []


def card(facts: Facts) -> str:
    """The text of README.md."""
    config, training, results = facts.config, facts.training, facts.results
    tuned = facts.architecture in TUNED
    loader, _, noun = TUNED.get(facts.architecture, ("AutoModelForMaskedLM", "", "encoder"))
    title = f"RoBERTa for {results['task']}" if results else f"RoBERTa {noun}"
    shape = {
        "architecture": facts.architecture,
        "parameters (with the masked-language head)": None if tuned else f"{config.parameters():,}",
        "layers": config.num_hidden_layers,
        "hidden size": config.hidden_size,
        "attention heads": config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "longest row (tokens)": config.max_length,
        "labels": ", ".join(config.id2label.values()) if tuned else None,
        "token types": "two, for the texts of a pair" if config.has_token_types else None,
        "SHA-256 of model.safetensors": facts.weights_sha256,
    }
    scores = _scores(facts)
    by_seed = {f"{results['metric']}, seed {seed}": value for seed, value in results.get("seeds", {}).items()}
    yardsticks = {
        f"{name}, same rows: {key}": value
        for name, each in results.get("baselines", {}).items()
        for key, value in each.items()
    }
    protocol = dict(results.get("protocol", {})) | {f"rows in {key}": n for key, n in results.get("rows", {}).items()}
    known = {label: training[key] for key, label in LOSSES.items() if key in training}
    settings = {key: value for key, value in training.items() if key not in LOSSES and not isinstance(value, dict)}
    data = {f"source {name} (md5)": md5 for name, md5 in facts.sources.items()}
    lines = [
        f"# {title}",
        "",
        "```python",
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f'model, tokenizer = {loader}.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
        "```",
        "",
        *_section("Parameters", _table(("what", "value"), shape)),
        *_section(
            "Metrics",
            [f"On {_data_name(facts)}, {protocol.get('split', 'dev')} split:", ""] if scores else [],
            _table(("metric", "value"), scores | by_seed | yardsticks),
            ["On held-out text of the corpus, 15 % of the tokens masked, always the same ones:", ""] if known else [],
            _table(("metric", "value"), known),
        ),
        *_section("Protocol of the fine-tuning", _table(("setting", "value"), protocol)),
        *_section("Pretraining", _table(("setting", "value"), settings)),
        *_section("Data", _table(("data", "value"), data)),
        *_section("Lineage", _table(("what", "value"), facts.lineage)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def write_card(file: Path, facts: Facts) -> None:
    """Writes the card: front matter, then the text."""
    with atomic_file(file) as handle:
        handle.write(f"---\n{yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)}---\n\n")
        handle.write(card(facts))
