"""Protocols of fine-tuning by name: what `glue.protocol` makes of the section `glue`.

- quick: the section's values, for every seed of it (one, by default).
- paper: Liu et al. 2019, section 5.1 and table 10: every pair of `grid_lr` and `grid_batch`, five seeds each, up to ten epochs
  of which the best on dev counts, warm-up 6 %, weight decay 0.1. Of a pair the median seed counts, of the pairs the best.
- staged: as quick, and the tasks of `staged` start from this run's MNLI model, as in the paper's submission to the
  leaderboard. Its dev scores are not staged (fairseq#1332), so the two are never one number.

A score is never shown without `record`, and two scores with other records are never compared.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from roberta_core.errors import BadParams
from roberta_core.finetune import Recipe
from roberta_core.finetune.points import Setting
from roberta_core.finetune.recipe import ENGINE
from tasks.params import Glue
from tasks.params_finetune import Options

PAPER_SEEDS = (1, 2, 3, 4, 5)
PAPER = {"epochs": 10, "max_steps": 0, "weight_decay": 0.1, "warmup_ratio": 0.06}
"""Table 10 and section 5.1 of arXiv 1907.11692. There the last word on early stopping is fairseq's: every epoch is scored, the
best one is kept, and all ten are run."""
MNLI = Path("models/glue/MNLI")


@dataclass(frozen=True)
class Protocol:
    """What is run for one task.

    Attributes:
        recipe: with the first setting's values.
        settings: the grid; one setting for all but `paper`.
        start: the folder of the encoder that is fine-tuned.
    """

    name: str
    recipe: Recipe
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    start: Path
    staged: bool
    options: Options

    def record(self, metric: str, steps: int) -> dict:
        """What two scores must share to be compared, as it stands in results.json; `steps`: of the first setting."""
        recipe, grid = self.recipe, len(self.settings) > 1
        record: dict = {"name": self.name, "engine": ENGINE, "seeds": list(self.seeds), "epochs": recipe.epochs}
        if grid:
            record["grid"] = [{"peak_lr": each.peak_lr, "batch_size": each.batch_size} for each in self.settings]
        else:
            record |= {"steps": steps, "peak_lr": recipe.peak_lr, "batch_size": recipe.batch_size}
        record |= {
            "weight_decay": recipe.weight_decay,
            "warmup_ratio": recipe.warmup_ratio,
            "dropout": recipe.dropout,
            "max_length": recipe.max_length,
            "precision": recipe.precision,
            "split": "dev",
            "staged_from_mnli": self.staged,
        }
        record |= {f"options.{key}": value for key, value in self.options.model_dump(exclude_defaults=True).items()}
        kept = f"best epoch by dev {metric}" if recipe.keep_best else "last step"
        over = "median over seeds" if len(self.seeds) > 1 else "one seed"
        best = f"; best of {len(self.settings)} settings by that" if grid else ""
        return record | {"selection": f"{kept}; {over}{best}"}


def recipe_of(section: Glue, max_length: int) -> Recipe:
    """The section's values as the engine takes them."""
    options = section.options
    return Recipe(
        max_length=max_length,
        epochs=section.epochs,
        max_steps=section.max_steps,
        batch_size=section.batch_size,
        peak_lr=section.peak_lr,
        weight_decay=section.weight_decay,
        warmup_ratio=section.warmup_ratio,
        dropout=section.dropout,
        precision=section.precision,
        keep_best=options.keep_best,
        patience=options.patience,
        layer_decay=options.layer_decay,
        frozen_layers=options.frozen_layers,
        reinit_layers=options.reinit_layers,
        clip_norm=options.clip_norm,
    )


def protocol_of(section: Glue, task: str, max_length: int) -> Protocol:
    """The protocol of one task. What the protocol sets and the section too is told, as it is not used.

    Raises:
        BadParams: a staged task, and the MNLI model is not there.
    """
    recipe, seeds = recipe_of(section, max_length), tuple(section.seeds)
    settings = (Setting(section.peak_lr, section.batch_size),)
    staged = task in section.staged
    if staged and not (MNLI / "model.safetensors").is_file():
        raise BadParams(
            f"{task} starts from the MNLI model, and {MNLI} is not there.",
            "Run MNLI first: dvc repro does, or python -m tasks.glue MNLI.",
        )
    if section.protocol == "paper":
        settings = tuple(Setting(lr, batch) for lr in section.grid_lr for batch in section.grid_batch)
        unused = [key for key, value in PAPER.items() if getattr(section, key) != value]
        unused += ["seeds"] if seeds != PAPER_SEEDS else []
        told = f"; not used: {', '.join(f'glue.{key}' for key in (*unused, 'peak_lr', 'batch_size'))}"
        print(f"glue-{task}: protocol paper, {len(settings)} settings × {len(PAPER_SEEDS)} seeds{told}", flush=True)
        recipe, seeds = settings[0].of(replace(recipe, **PAPER, keep_best=True)), PAPER_SEEDS
    start = MNLI if staged else Path(section.encoder)
    return Protocol(section.protocol, recipe, settings, seeds, start, staged, section.options)
