"""Time and memory of the data stages as the corpus grows, two processes against one, and what a new source costs.

    python benchmarks/scale.py sizes 50 150 500      # a table by stage; each stage is a process of its own, as under DVC
    python benchmarks/scale.py workers 100           # one process on one core against two on two, and what two can give at all
    python benchmarks/scale.py add 150               # a source of a tenth more, against all anew: seconds, and the same bytes
    python benchmarks/scale.py add 150 --project p   # the same; what stands before the new source is built there once

The text is benchmarks/growing.py's, from ../shared/data or --data. Nothing is written beside a temporary folder.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ceiling import ceilings  # noqa: E402
from benchmarks.growing import write_corpus  # noqa: E402
from benchmarks.watched import Watched, run  # noqa: E402
from roberta_core.atomic import digest_of, read_json  # noqa: E402

SAMPLE_MB = 32
"""Text that the tokenizer learns from: less than the smallest size, so that its memory is the same for all."""

CEILING_ROUNDS = 3

OUTS = ("raw", "clean", "dedup", "shards", "packed")


def project(folder: Path, sources: list[str], workers: int, **sections: dict) -> None:
    """A project in `folder` with these sources under in/, in this order."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))
    params["corpus"] = {"sources": {source: {"kind": "files", "path": f"in/{source}"} for source in sources}}
    params["tokenizer"] = {"vocab_size": 16384, "sample_mb": SAMPLE_MB}
    params["runtime"] = {**params["runtime"], "workers": workers}
    params["shard"] = {**params["shard"], "shard_mb": 16}
    for name, section in sections.items():
        params[name] = {**params.get(name, {}), **section}
    (folder / "params.yaml").unlink(missing_ok=True)  # it may be a link
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf8")


def corpus(args: argparse.Namespace, folder: Path, size_mb: float, first_round: int = 0) -> float:
    """The corpus of this size in `folder`; from --corpora, where it lies from an earlier run. Returns its MB."""
    if not args.corpora:
        return sum(write_corpus(args.data, folder, size_mb, first_round).values())
    kept = args.corpora / f"{size_mb:g}-from-{first_round}"
    if not kept.is_dir():
        write_corpus(args.data, kept.with_suffix(".tmp"), size_mb, first_round)
        kept.with_suffix(".tmp").rename(kept)
    shutil.copytree(kept, folder, copy_function=os.link)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def prepare(args: argparse.Namespace) -> None:
    """Writes corpora to --corpora, so that a measurement need not."""
    for size in args.mb:
        with tempfile.TemporaryDirectory(dir=args.corpora) as name:
            corpus(args, Path(name) / "in", size)
            corpus(args, Path(name) / "new", size / 10, 90)


def stages_of(sources: list[str]) -> list[str]:
    """Commands of the data stages, in the order of the DAG."""
    per_source = [f"{stage} {source}" for stage in ("download", "clean") for source in sources]
    return [*per_source, "dedup", "shard", "tokenizer", "pack"]


def run_stage(folder: Path, stage: str, cores: int = 0) -> Watched:
    """One stage as a process, on so many cores (0: all)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return run([sys.executable, "-m", *f"tasks.{stage}".split()], folder, environment, cores)


def run_stages(folder: Path, stages: list[str], cores: int = 0) -> dict[str, Watched]:
    """Stages one after the other, summed by their first word."""
    found: dict[str, Watched] = {}
    for stage in stages:
        one, name = run_stage(folder, stage, cores), stage.split()[0]
        if name in found:
            was = found[name]
            one = Watched(
                was.seconds + one.seconds,
                was.cpu_s + one.cpu_s,
                max(was.peak_mb, one.peak_mb),
                max(was.anon_mb, one.anon_mb),
                max(was.processes, one.processes),
            )
        found[name] = one
        print(f"  {stage}: {one.seconds:.1f} s so far, {one.peak_mb:.0f} MB", file=sys.stderr, flush=True)
    return found


def fresh(folder: Path) -> None:
    """Takes away all that the stages made, and what they keep for speed."""
    for name in ("data", "models", "metrics", "logs", ".work"):
        shutil.rmtree(folder / name, ignore_errors=True)


def sizes(args: argparse.Namespace) -> None:
    """Time and memory by stage at each size."""
    results: dict[float, dict[str, Watched]] = {}
    texts: dict[float, float] = {}
    for size in args.mb:
        with tempfile.TemporaryDirectory(dir=args.dir) as name:
            folder = Path(name)
            texts[size] = corpus(args, folder / "in", size)
            project(folder, ["books", "wiki"], args.workers)
            results[size] = run_stages(folder, stages_of(["books", "wiki"]))
            told = {stage: read_json(folder / "metrics" / f"{stage}.json") for stage in ("dedup", "pack")}
            print(
                f"{texts[size]:.0f} MB: {told['dedup']['seen']} documents, {told['dedup']['kept']} kept, "
                f"{told['pack']['train_tokens'] / 1e6:.1f} M tokens",
                flush=True,
            )
    stages = list(results[args.mb[0]])
    print("\n| stage | " + " | ".join(f"{texts[size]:.0f} MB" for size in args.mb) + " |")
    print("|---" * (len(args.mb) + 1) + "|")
    for stage in stages:
        cells = [
            f"{one.seconds:.1f} s, {one.peak_mb:.0f} ({one.anon_mb:.0f}) MB"
            for one in (results[size][stage] for size in args.mb)
        ]
        print(f"| {stage} | " + " | ".join(cells) + " |")
    total = {size: sum(one.seconds for one in results[size].values()) for size in args.mb}
    peak = {size: max(one.peak_mb for one in results[size].values()) for size in args.mb}
    print("| all | " + " | ".join(f"{total[size]:.1f} s, {peak[size]:.0f} MB" for size in args.mb) + " |")
    print("| MB/s | " + " | ".join(f"{texts[size] / total[size]:.2f}" for size in args.mb) + " |")
    least, most = args.mb[0], args.mb[-1]
    growth = (total[most] / texts[most]) / (total[least] / texts[least])
    print(f"\nlargest to smallest: seconds a MB {growth:.3f}, peak memory {peak[most] / peak[least]:.3f}")


def workers(args: argparse.Namespace) -> None:
    """One process on one core against two on two, by stage, interleaved; and the machine's own ratio.

    On one core, because the tokenizer's threads would make more than one core's work of one process.
    """
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        text = corpus(args, folder / "in", args.mb)
        found: dict[int, list[dict[str, Watched]]] = {1: [], 2: []}
        digests = set()
        for _ in range(args.rounds):
            for count in (1, 2):
                fresh(folder)
                project(folder, ["books", "wiki"], count)
                found[count].append(run_stages(folder, stages_of(["books", "wiki"]), count))
                digests.add(tuple(digest_of(folder / "data" / out) for out in OUTS))
        machine = ceilings(folder, CEILING_ROUNDS)
    print(
        f"{text:.0f} MB, {args.rounds} rounds, medians; the bytes are {'the same' if len(digests) == 1 else 'NOT THE SAME'}"
    )
    print("| stage | one process | two | ratio |\n|---|---|---|---|")
    rows = {}
    for stage in found[1][0]:
        rows[stage] = [
            sorted(each[stage].seconds for each in found[count])[len(found[count]) // 2] for count in (1, 2)
        ]
    rows["all"] = [sum(each[column] for each in rows.values()) for column in (0, 1)]
    rows |= {f"the machine: {kernel}": seconds for kernel, seconds in machine.items()}
    for told, (one, two) in rows.items():
        print(f"| {told} | {one:.1f} s | {two:.1f} s | {one / two:.2f} |")


def build_before(args: argparse.Namespace, folder: Path) -> float:
    """The project without the new source, built in `folder`, unless it stands there. Returns the MB of the new source."""
    if not (folder / "models-before").is_dir():
        corpus(args, folder / "in", args.mb)
        # text of a round of its own, like nothing before
        corpus(args, folder / "in" / "new", args.mb / 10, first_round=90)
        project(folder, ["books", "wiki"], args.workers)
        run_stages(folder, stages_of(["books", "wiki"]))
        shutil.copytree(folder / "models", folder / "models-before")
    return sum(file.stat().st_size for file in (folder / "in" / "new").rglob("*") if file.is_file()) / 1e6


def add(args: argparse.Namespace) -> None:
    """A source of a tenth more: what is new, against all anew, in turns; the tokenizer as it was.

    With --new-tokenizer also a tokenizer that is learned anew, which packing depends on as a whole.
    """
    sources = ["books", "wiki", "new"]
    new_stages = ["download new", "clean new", "dedup", "shard", "pack"]
    all_stages = [f"{stage} {source}" for stage in ("download", "clean") for source in sources]
    all_stages += ["dedup", "shard", "pack"]
    found: dict[str, list[dict[str, Watched]]] = {"grown": [], "anew": []}
    same: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        before = args.project or Path(name) / "before"
        before.mkdir(parents=True, exist_ok=True)
        new = build_before(args, before)
        for turn in range(args.rounds):
            digests = {}
            for case, stages in (("grown", new_stages), ("anew", all_stages)):
                folder = Path(name) / f"{case}-{turn}"
                shutil.copytree(before, folder, copy_function=os.link)
                project(folder, sources, args.workers)
                if case == "anew":
                    fresh(folder)
                    shutil.copytree(folder / "models-before", folder / "models", copy_function=os.link)
                found[case].append(run_stages(folder, stages))
                digests[case] = {out: digest_of(folder / "data" / out) for out in OUTS}
                if args.new_tokenizer:
                    if case == "anew":
                        shutil.rmtree(folder / ".work")
                    last = run_stages(folder, ["tokenizer", "pack"])
                    found[case][-1] |= {f"{stage}, new tokenizer": one for stage, one in last.items()}
                    digests[case]["packed with a new tokenizer"] = digest_of(folder / "data" / "packed")
                shutil.rmtree(folder)
            for out, digest in digests["anew"].items():
                same[out] = same.get(out, True) and digest == digests["grown"][out]
    print(f"{args.mb:.0f} MB, then {new:.0f} MB more, {args.rounds} rounds, medians; the same bytes: {same}")
    print("| stage | all anew | with what is new | share | peak memory |\n|---|---|---|---|---|")
    rows: dict[str, list[float]] = {}
    for stage in found["anew"][0]:
        rows[stage] = [
            sorted(each[stage].seconds for each in found[case])[args.rounds // 2] for case in ("anew", "grown")
        ]
        peak = max(each[stage].peak_mb for case in found.values() for each in case)
        print(_shared(stage, *rows[stage]) + f" {peak:.0f} MB |")
    shards = ["download", "clean", "dedup", "shard"]
    sums = {"to shards": shards, "to packed rows, the tokenizer as it was": [*shards, "pack"]}
    if args.new_tokenizer:
        sums["to packed rows, a new tokenizer"] = [*shards, "tokenizer, new tokenizer", "pack, new tokenizer"]
    for told, stages in sums.items():
        print(_shared(told, *(sum(rows[stage][column] for stage in stages) for column in (0, 1))) + " |")


def _shared(told: str, whole: float, part: float) -> str:
    return f"| {told} | {whole:.1f} s | {part:.1f} s | {part / whole:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in (sizes, workers, add, prepare):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        many = {"nargs": "+"} if command in (sizes, prepare) else {}
        sub.add_argument("mb", type=float, **many, help="MB of text")
        sub.add_argument("--corpora", type=Path, help="a folder that corpora are kept in, on the file system of --dir")
        sub.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
        sub.add_argument("--dir", type=Path, help="where the temporary folder goes")
        sub.add_argument("--workers", type=int, default=2)
        sub.add_argument("--rounds", type=int, default=1)
        if command is add:
            sub.add_argument("--project", type=Path, help="where the project before the new source is kept")
            sub.add_argument("--new-tokenizer", action="store_true")
        sub.set_defaults(run=command)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
