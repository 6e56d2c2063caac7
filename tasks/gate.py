"""The gate: whether a version takes the champion's place, with the figures that a person needs to argue.

The first version passes. A later one is compared with the champion on the same dev rows, by both models' predictions
(`roberta_core.bootstrap`), and must pass every check of `registry`:
- `min_gain` and `gate.max_p`: in the mean over the tasks the gain is above the margin, and hardly by chance;
- `gate.max_task_loss`: no task of the mean loses more than this;
- `gate.max_size_ratio`, `gate.max_latency_ratio`: not much bigger, not much slower, side by side on this machine.

Scores on different yardsticks (other data, metric, protocol) are never compared, and a version without predictions is
never promoted by itself: `roberta promote` does it by hand. An encoder without tasks has only its held-out loss, one
number; there the margin alone decides, and the sentence says so.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from roberta_core.bootstrap import Gain, compare
from tasks.evidence import read_pairs
from tasks.params import Registry

LOSS = "held-out loss"
LATENCY_TEXTS = ["The function returns a list of strings, one for each line of the file that was given to it."] * 16
LATENCY_ROUNDS = 7


@dataclass(frozen=True)
class Side:
    """A version before the gate: its tags, and where its evidence and its model folder lie, fetched when asked for."""

    version: str
    tags: dict[str, str]
    evidence: Callable[[], Path | None] = lambda: None
    folder: Callable[[], Path | None] = lambda: None


@dataclass(frozen=True)
class Check:
    """One margin: what was asked, what was found, whether it passed."""

    asked: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: a sentence that begins with `promoted` or `not promoted`, and the table behind it."""

    promoted: bool
    why: str
    gains: list[Gain] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def as_json(self) -> str:
        """The table for a tag; empty without figures."""
        if not self.gains:
            return ""
        rounded = [
            {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(each).items()}
            for each in self.gains
        ]
        return json.dumps({"gains": rounded, "checks": [asdict(each) for each in self.checks]}, sort_keys=True)


def decide(new: Side, champion: Side | None, rules: Registry) -> Verdict:
    """Whether `new` takes the champion's place."""
    if champion is None:
        told = _score(new.tags)
        return Verdict(True, f"promoted: the first version{f' with {told}' if told else ''}")
    if "score" not in new.tags:
        return Verdict(False, "not promoted: it has no score")
    if "score" not in champion.tags:
        return Verdict(True, f"promoted: {_score(new.tags)}, and the champion has no score")
    if differs := difference(new.tags, champion.tags):
        return Verdict(False, f"not promoted: {differs}")
    if new.tags["measure"] == LOSS:
        return _by_loss(float(new.tags["score"]), float(champion.tags["score"]), rules.min_gain)
    return _by_predictions(new, champion, rules)


def _score(tags: dict[str, str]) -> str:
    return f"{tags['measure']} {float(tags['score']):.4f} ({tags['data']} data)" if "score" in tags else ""


def difference(new: dict[str, str], champion: dict[str, str]) -> str:
    """Why two versions' scores cannot be compared; empty where they can. Both are versions' tags."""
    if new["data"] != champion["data"]:
        return f"its score is on {new['data']} data and the champion's on {champion['data']} data, which cannot be compared"
    if new["measure"] != champion["measure"] or _yardstick(new) != _yardstick(champion):
        return f"its score and the champion's cannot be compared ({_first_difference(new, champion)})"
    return ""


def _yardstick(tags: dict[str, str]) -> dict:
    """A version's yardstick. Where it names no protocol it is `quick`'s: a classifier's, or each task's of an encoder's.

    Where a task's way of fine-tuning, which is part of an encoder's, names no engine, it is the first one.
    """
    found = json.loads(tags["yardstick"])
    if "selection" in found:
        return {"protocol": "quick"} | found
    return {
        key: {"protocol": "quick", "name": "quick", "engine": 1} | each if isinstance(each, dict) else each
        for key, each in found.items()
    }


def _first_difference(new: dict[str, str], champion: dict[str, str]) -> str:
    """The first thing in which two yardsticks differ."""
    if new["measure"] != champion["measure"]:
        return f"{new['measure']} against {champion['measure']}"
    one, other = _yardstick(new), _yardstick(champion)
    if one.keys() != other.keys():
        return f"measured on {', '.join(one)} against {', '.join(other)}"
    key = next(key for key in one if one[key] != other[key])
    if isinstance(one[key], dict):
        inner = next(name for name in one[key] | other[key] if one[key].get(name) != other[key].get(name))
        return f"{key}: {_another(inner, one[key].get(inner), other[key].get(inner))}"
    return _another(key, one[key], other[key])


def _another(what: str, new: object, champion: object) -> str:
    """`another dev_md5`; a protocol by its names, the engine by its numbers."""
    if what in ("protocol", "name"):
        return f"protocol {new} against {champion}"
    if what == "engine":
        return f"fine-tuned by engine {new} against {champion}"
    return f"another {what}"


def _by_loss(ours: float, theirs: float, min_gain: float) -> Verdict:
    told = f"{LOSS} {ours:.4f} against the champion's {theirs:.4f}, a gain of {theirs - ours:+.4f}"
    if theirs - ours > min_gain:
        return Verdict(True, f"promoted: {told}, more than {min_gain:g} (one number: no test of chance)")
    return Verdict(False, f"not promoted: {told}, and more than {min_gain:g} is asked for")


def _by_predictions(new: Side, champion: Side, rules: Registry) -> Verdict:
    sides = {side.version: side.evidence() for side in (champion, new)}
    for version, evidence in sides.items():
        if evidence is None:
            return Verdict(False, f"not promoted: version {version} keeps no dev predictions to compare on")
    pairs, differs = read_pairs(sides[champion.version], sides[new.version])
    if differs:
        return Verdict(False, f"not promoted: its predictions and the champion's cannot be compared ({differs})")
    gains = compare(pairs, rules.min_gain, rules.gate.resamples)
    mean = gains[-1]
    checks = list(_margins(gains, rules))
    if all(each.passed for each in checks):
        checks += _bounds(new, champion, rules)
    told = (
        f"{new.tags['measure']} {mean.new:.4f} against the champion's {mean.old:.4f}, a gain of {mean.gain:+.4f} "
        f"(95 % interval {mean.low:+.4f} to {mean.high:+.4f}, p = {mean.p:.3f})"
    )
    failed = [f"{each.asked}, found {each.found}" for each in checks if not each.passed]
    if failed:
        return Verdict(False, f"not promoted: {told}; asked for: {'; '.join(failed)}", gains, checks)
    return Verdict(True, f"promoted: {told}", gains, checks)


def _margins(gains: list[Gain], rules: Registry):
    mean, asked = gains[-1], rules.gate
    yield Check(f"gain in the mean above {rules.min_gain:g}", f"{mean.gain:+.4f}", mean.gain > rules.min_gain)
    yield Check(f"p below {asked.max_p:g}", f"{mean.p:.3f}", mean.p < asked.max_p)
    worst = min((each for each in gains[:-1] if each.counted), key=lambda each: each.gain)
    yield Check(
        f"no task loses more than {asked.max_task_loss:g}",
        f"{worst.task} {worst.gain:+.4f}",
        worst.gain >= -asked.max_task_loss,
    )


def _bounds(new: Side, champion: Side, rules: Registry) -> list[Check]:
    """Size of the weights and time of a prediction, as a ratio to the champion's."""
    if not rules.gate.max_size_ratio and not rules.gate.max_latency_ratio:
        return []
    found, (ours, theirs) = [], (side.folder() for side in (new, champion))
    if ours is None or theirs is None:
        return [
            Check("both versions' files at hand", "the champion's are gone" if ours else "its own are gone", False)
        ]
    if bound := rules.gate.max_size_ratio:
        ratio = _bytes(ours) / _bytes(theirs)
        found.append(Check(f"at most {bound:g} times the size", f"{ratio:.2f} times", ratio <= bound))
    if bound := rules.gate.max_latency_ratio:
        ratio = latency_ratio(ours, theirs)
        found.append(Check(f"at most {bound:g} times the time of a prediction", f"{ratio:.2f} times", ratio <= bound))
    return found


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def latency_ratio(ours: Path, theirs: Path) -> float:
    """Seconds of a prediction of one model folder over the other's: in turns, the best of `LATENCY_ROUNDS` each.

    On the CPU the process's own time counts, which others at work on the machine do not lengthen.
    """
    from roberta_core.inference import load_model

    models = [load_model(folder) for folder in (ours, theirs)]
    on_cpu = all(next(each.model.parameters()).device.type == "cpu" for each in models)
    clock = time.process_time if on_cpu else time.perf_counter
    best = [float("inf")] * 2
    for _ in range(LATENCY_ROUNDS):
        for number, model in enumerate(models):
            started = clock()
            model.predict(LATENCY_TEXTS)
            best[number] = min(best[number], clock() - started)
    return best[0] / best[1]


HEADERS = ("task", "metric", "dev rows", "champion", "candidate", "gain", "95 % interval", "p", "seeds")


def table(told: str) -> list[tuple[str, ...]]:
    """Rows of a verdict's `as_json`, as text, under `HEADERS`; none for an empty one."""
    rows = []
    for each in json.loads(told)["gains"] if told else ():
        rows.append(
            (
                each["task"] + ("" if each["counted"] else " (not in the mean)"),
                each["metric"],
                f"{each['rows']:,}",
                f"{each['old']:.4f}",
                f"{each['new']:.4f}",
                f"{each['gain']:+.4f}",
                f"{each['low']:+.4f} to {each['high']:+.4f}",
                f"{each['p']:.3f}",
                str(each["seeds"]),
            )
        )
    # a mean of one is the one
    return rows[:1] if len(rows) == 2 else rows


def checks(told: str) -> list[tuple[str, str, str]]:
    """The checks of a verdict's `as_json`: what was asked, what was found, passed or failed."""
    listed = json.loads(told)["checks"] if told else ()
    return [(each["asked"], each["found"], "passed" if each["passed"] else "failed") for each in listed]


def as_text(told: str) -> str:
    """A verdict's table for a terminal; empty without figures."""
    rows = table(told)
    if not rows:
        return ""
    widths = [max(len(row[at]) for row in (HEADERS, *rows)) for at in range(len(HEADERS))]
    lines = []
    for row in (HEADERS, *rows):
        cells = [
            text.ljust(width) if at < 2 else text.rjust(width) for at, (text, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *(f"{passed}: {asked}: {found}" for asked, found, passed in checks(told))])


def as_markdown(told: str) -> str:
    """A verdict's table for Prefect's page; empty without figures."""
    rows = table(told)
    if not rows:
        return ""
    lines = [f"| {' | '.join(row)} |" for row in (HEADERS, ("---",) * len(HEADERS), *rows)]
    return "\n".join([*lines, "", *(f"- {passed}: {asked}: {found}" for asked, found, passed in checks(told))])
