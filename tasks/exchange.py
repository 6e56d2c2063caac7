"""`roberta import` and `roberta export`: what goes in and out, checked before it is put in its place, with a card.

An export holds what a stranger needs and nothing of this project's inside: `config.json`, `model.safetensors`, the tokenizer,
`README.md` (the card), the numbers behind the card (`training.json`, `results.json`) and `SHA256SUMS`. It is loaded back, and
predicts what its source predicts, before it gets its name.
"""

import shutil
from pathlib import Path

from roberta_core.atomic import atomic_dir, digest_of, read_json
from roberta_core.errors import BadInput
from roberta_core.exchange.importing import import_model
from roberta_core.model.folder import WEIGHTS, read_config, read_values, read_weights, write_sums
from roberta_core.model.heads import POOLER
from tasks.card import Facts, write_card
from tasks.evidence import read_lock
from tasks.tracking import lineage_tags

EXPORTED = ("tokenizer.json", "tokenizer_config.json", "training.json", "results.json", "task.json")


def _check_out(out: Path, force: bool) -> None:
    """Raises BadInput where `out` stands in the way; nothing has been read or fetched by then."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file.", "Give a folder that is to be written.")
    if out.exists() and any(out.iterdir()) and not force:
        raise BadInput(f"{out} exists already.", "Give another folder, or --force to replace it.")


def take_in(root: Path, source: str, out: Path, force: bool = False) -> list[str]:
    """Imports a model into the folder `out`. Returns what to say about it, a line each.

    Raises:
        BadInput: the source cannot be used, or `out` exists; nothing was written then.
    """
    _check_out(out, force)
    imported = import_model(source, out)
    config = imported.config
    facts = Facts(config, read_values(out)["architectures"][0], digest_of(out / WEIGHTS))
    facts.lineage["imported from"] = source if imported.revision or not Path(source).exists() else Path(source).name
    if imported.revision:
        facts.lineage["revision"], facts.base_model = imported.revision, source
    facts.lineage["kind of source"] = imported.family
    write_card(out / "README.md", facts)
    size = f"{config.parameters() / 1e6:.1f} M parameters, {config.num_hidden_layers} layers of {config.hidden_size}"
    said = f"{out}: a {imported.family} model, {size}, rows of up to {config.max_length} tokens"
    return [said, *imported.notes]


def _registered(root: Path, name: str) -> tuple[Path, dict[str, str], str]:
    """Folder, tags and label of a registered version."""
    from tasks.registry import model_folder, named_version, open_store

    version = named_version(open_store(root), name)
    folder = model_folder(root, version.name, str(version.version))
    found = digest_of(folder / WEIGHTS)
    if version.tags.get("model_sha256", found) != found:
        raise BadInput(
            f"The weights of {version.name} {version.version} are not those that were registered.",
            "The store is damaged: restore it, or register the model again.",
        )
    return folder, dict(version.tags), f"{version.name} version {version.version}"


def _source(root: Path, name: str) -> tuple[Path, dict[str, str], str]:
    """Where a model to export lies, what the registry knows of it, and its name there."""
    if not name.startswith("models:/") and (Path(name).is_dir() or "/" in name):
        return Path(name), {}, ""
    return _registered(root, name)


def _facts(root: Path, folder: Path, tags: dict[str, str], label: str) -> Facts:
    """Everything the card says; what is not known is left out."""
    values = read_values(folder)
    facts = Facts(read_config(folder), (values.get("architectures") or [""])[0], digest_of(folder / WEIGHTS))
    for file, into in (("training.json", facts.training), ("results.json", facts.results)):
        if (folder / file).is_file():
            into.update(read_json(folder / file))
    if label:
        facts.lineage["registered as"] = label
        facts.lineage |= {key: tags[key] for key in ("git_commit", "dvc_lock_sha256", "data_md5") if key in tags}
        facts.sources = {key.removeprefix("source."): md5 for key, md5 in tags.items() if key.startswith("source.")}
    elif folder.resolve().is_relative_to(root.resolve() / "models"):  # made here: by the state of this project
        facts.lineage |= lineage_tags(root)
        stages = read_lock(root / "dvc.lock")
        facts.sources = {
            stage.partition("@")[2]: values["outs"][0].get("md5", "")
            for stage, values in stages.items()
            if stage.startswith("download@") and values.get("outs")
        }
    return facts


def give_out(root: Path, source: str, out: Path, force: bool = False) -> list[str]:
    """Exports a model folder or a registered version to the folder `out`. Returns what to say about it, a line each.

    Raises:
        BadInput: the source is no model of this project's kind, or `out` exists; nothing was written then.
    """
    from roberta_core.inference import load_model

    _check_out(out, force)
    folder, tags, label = _source(root, source)
    if out.resolve() == folder.resolve():
        raise BadInput(f"{out} is the source itself.", "Give another folder.")
    model = load_model(folder, device="cpu")
    before = model.predict(model.samples)
    facts = _facts(root, folder, tags, label)
    with atomic_dir(out) as temporary:
        kept = {name: each for name, each in read_weights(folder).items() if name.startswith(POOLER)}
        typed = model.kind == "encoder" and model.model.config.has_token_types  # a BERT: its pooler begins classifiers
        model.model.save_pretrained(temporary, dict(model.model.saved_weights()) | (kept if typed else {}))
        for name in EXPORTED:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, temporary / name)
        write_sums(temporary)
        facts.weights_sha256 = digest_of(temporary / WEIGHTS)
        write_card(temporary / "README.md", facts)
        if load_model(temporary, device="cpu").predict(model.samples) != before:
            raise BadInput(f"The export of {folder} predicts something else than {folder}.", "Report it as a bug.")
    size = (out / WEIGHTS).stat().st_size / 1e6
    return [f"{out}: {facts.architecture}, {size:.1f} MB, loaded back with equal predictions; its card is README.md"]
