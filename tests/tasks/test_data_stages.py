"""download, clean, dedup and shard as their processes run them: real params, real files, real exit codes."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from roberta_core.atomic import digest_of, read_json
from roberta_core.data.documents import read_shards
from roberta_core.errors import BadInput, BadParams
from tasks import clean, dedup, download, shard
from tasks.params import Params

ROOT = Path(__file__).parents[2]
WIKI = ROOT.parent / "shared" / "data" / "wiki_en" / "text" / "AA" / "wiki_00"
BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))


def article(number: int, words: int = 80) -> str:
    """Text of its own for each number, like no other one."""
    return " ".join(f"word{(number * 7919 + place * 104729) % 100003}" for place in range(words)) + f" ends {number}"


def params_of(sources: dict, **sections) -> Params:
    value = {**BASE, "corpus": {"sources": sources}, **sections}
    return Params.model_validate(value)


def files(path: str, **more) -> dict:
    return {"kind": "files", "path": path, **more}


def run_all(params: Params) -> dict[str, dict]:
    """The four stages in this process, in the order of the DAG; their metrics."""
    told = {}
    for source in params.corpus.sources:
        told[f"download-{source}"] = download.run(params, source)
        told[f"clean-{source}"] = clean.run(params, source)
    told["dedup"] = dedup.run(params)
    told["shard"] = shard.run(params)
    return told


def texts_in(folder: Path | str) -> list[str]:
    return [text for batch in read_shards(Path(folder), ["text"]) for text in batch.column("text").to_pylist()]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_jsonl(path: str, texts) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf8")


def test_two_sources_become_shards(here):
    write_jsonl("in/a/1.jsonl", [article(n) for n in range(60)] + [article(0), "too short"])
    write_jsonl("in/b/1.jsonl", [article(n) for n in range(50, 100)] + [article(100) + " extra"])
    told = run_all(params_of({"a": files("in/a"), "b": files("in/b")}))
    assert told["clean-a"]["dropped_too_short"] == 1
    assert (told["dedup"]["seen"], told["dedup"]["kept_a"], told["dedup"]["kept_b"]) == (112, 60, 41)
    train, validation = texts_in("data/shards/train"), texts_in("data/shards/validation")
    assert len(validation) == told["shard"]["validation_documents"] >= 1
    assert sorted([*train, *validation]) == sorted([article(n) for n in range(100)] + [article(100) + " extra"])
    assert told["shard"]["train_chars"] == sum(map(len, train))
    clusters = pa.ipc.open_file("data/dedup/clusters.arrow").read_all().to_pylist()
    assert (
        len(clusters) == 11
        and {row["kind"] for row in clusters} == {"exact"}
        and {row["kept_source"] for row in clusters} == {"a"}
    )
    rows = {
        row["doc_id"]: row["source"] for batch in read_shards(Path("data/shards/train")) for row in batch.to_pylist()
    }
    assert set(rows.values()) == {"a", "b"} and len(rows) == len(train)


def test_no_byte_depends_on_the_number_of_workers(here):
    for number in range(6):
        write_jsonl(
            f"in/{number}.jsonl", [article(n % 150) + " same" * (n % 3) for n in range(number * 40, number * 40 + 60)]
        )
    digests = []
    for workers in (1, 2):
        told = run_all(params_of({"s": files("in")}, runtime={"workers": workers}, shard={"shard_mb": 0.02}))
        digests.append(
            {name: digest_of(Path("data") / name) for name in ("raw", "clean", "dedup", "shards")} | {"told": told}
        )
    assert digests[0] == digests[1] and told["shard"]["train_parts"] > 3


def test_the_order_of_sources_decides_who_stays_and_old_sources_are_ignored(here):
    write_jsonl("in/a.jsonl", [article(n) for n in range(30)])
    write_jsonl("in/b.jsonl", [article(n) for n in range(20)])
    run_all(params_of({"a": files("in/a.jsonl"), "b": files("in/b.jsonl")}))
    turned = params_of({"b": files("in/b.jsonl"), "a": files("in/a.jsonl")})
    assert dedup.run(turned)["kept_b"] == 20 and dedup.run(turned)["kept_a"] == 10
    alone = params_of({"b": files("in/b.jsonl")})
    assert dedup.run(alone)["seen"] == 20 and shard.run(alone)["kept"] == 20
    assert sorted(path.name for path in Path("data/dedup").glob("keep-*")) == ["keep-b.arrow"]


def test_validation_is_chosen_by_text_and_stays_when_a_source_is_added(here):
    write_jsonl("in/a.jsonl", [article(n) for n in range(200)])
    write_jsonl("in/b.jsonl", [article(n) for n in range(200, 300)])
    share = {"validation_share": 0.1}
    run_all(params_of({"a": files("in/a.jsonl")}, shard=share))
    before = set(texts_in("data/shards/validation"))
    run_all(params_of({"b": files("in/b.jsonl"), "a": files("in/a.jsonl")}, shard=share))
    after = set(texts_in("data/shards/validation"))
    assert 5 < len(before) < 40 and before < after
    assert not after & set(texts_in("data/shards/train"))


@pytest.mark.parametrize("share", [1e-9, 0.499])
def test_both_splits_get_one_document_of_two(here, share):
    write_jsonl("in/a.jsonl", [article(1), article(2)])
    told = run_all(params_of({"a": files("in/a.jsonl")}, shard={"validation_share": share}))
    assert (told["shard"]["train_documents"], told["shard"]["validation_documents"]) == (1, 1)


def test_bad_documents_beside_good_ones_are_counted_by_name_up_to_their_share(here):
    write_jsonl("in/good.jsonl", [article(n) for n in range(5)])
    Path("in/latin.txt").write_bytes("naïve café ".encode("latin-1") * 50)
    Path("in/empty.md").write_bytes(b"")
    with pytest.raises(
        BadInput, match=r"Of 7 documents .* 1 cannot be read: invalid_utf8 1 .*latin.txt.*max_bad_share"
    ):
        download.run(params_of({"a": files("in")}), "a")
    assert not Path("data/raw/a").exists()
    told = download.run(params_of({"a": files("in", max_bad_share=0.2)}), "a")
    assert told == {"seen": 7, "kept": 5, "chars": told["chars"], "dropped_empty": 1, "dropped_invalid_utf8": 1}
    examples = read_json(Path("data/raw/a/funnel.json"))["examples"]
    assert examples["invalid_utf8"][0].startswith("latin.txt")


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-9], lambda raw: raw[:10] + b"\xff" * 20])
def test_a_damaged_gzip_beside_good_files_is_never_passed_over(here, spoil):
    write_jsonl("in/good.jsonl", [article(n) for n in range(500)])
    Path("in/cut.txt.gz").write_bytes(spoil(gzip.compress(article(7).encode())))
    with pytest.raises(BadInput, match=r"a file that cannot be read: cut.txt.gz: .* Fetch it again, or take it out"):
        download.run(params_of({"a": files("in", max_bad_share=1)}), "a")
    assert not Path("data/raw/a").exists()
    Path("in/cut.txt.gz").write_bytes(gzip.compress(article(7).encode()))
    assert download.run(params_of({"a": files("in")}), "a")["kept"] == 501


def test_a_pipe_in_the_folder_is_no_file(here):
    write_jsonl("in/good.jsonl", [article(1)])
    os.mkfifo("in/pipe")
    assert download.run(params_of({"a": files("in")}), "a")["seen"] == 1


def test_what_makes_a_corpus_empty_is_told(here):
    write_jsonl("in/a.jsonl", ["short", "also short", "-- " * 300])
    with pytest.raises(BadInput, match=r"cleaning dropped all 3 documents \(too_short 2, too_many_symbols 1\)"):
        run_all(params_of({"a": files("in/a.jsonl")}))
    assert not Path("data/dedup").exists()
    write_jsonl("in/one.jsonl", [article(1), article(1)])
    with pytest.raises(BadInput, match="has only one document after dedup"):
        run_all(params_of({"a": files("in/one.jsonl")}))
    assert not Path("data/shards").exists()


def test_a_source_without_a_document_is_told(here):
    Path("in").mkdir()
    Path("in/a.txt.gz").write_bytes(b"\x1f\x8bnot really")
    with pytest.raises(BadInput, match=r"The source a gave no document: unreadable_file 1 \(for example 'a.txt.gz"):
        download.run(params_of({"a": files("in")}), "a")
    write_jsonl("in/b.jsonl", [])
    Path("in/b.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(BadInput, match=r"missing_text_field 1 \(for example .*no 'text' in: body.*corpus.sources.b"):
        download.run(params_of({"b": files("in/b.jsonl")}), "b")
    assert not Path("data/raw/a").exists() and not Path("data/raw/b").exists()


def test_http_and_hub_sources(here, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(here / "cache"))
    write_jsonl("set/rows.jsonl", [article(n) for n in range(5)])
    packed = Path("far.jsonl.gz")
    packed.write_bytes(gzip.compress(Path("set/rows.jsonl").read_bytes()))
    far = {"kind": "http", "path": "params.yaml", "url": packed.absolute().as_uri(), "sha256": digest_of(packed)}
    hub = {"kind": "hub", "path": "params.yaml", "name": str(here / "set"), "max_docs": 3}
    params = params_of({"far": far, "hub": hub})
    assert download.run(params, "far")["kept"] == 5 and download.run(params, "hub")["kept"] == 3
    packed.unlink()
    assert download.run(params, "far")["kept"] == 5
    assert (
        texts_in("data/raw/far") == [article(n) for n in range(5)]
        and texts_in("data/raw/hub") == texts_in("data/raw/far")[:3]
    )


def test_repeated_paragraphs_leave_later_documents(here):
    licence = "Licence: " + article(1000)
    write_jsonl("in/a.jsonl", [f"{article(n)}\n\n{licence}" for n in range(20)])
    write_jsonl("in/b.jsonl", [licence + "\n\n" + article(0), article(30)])
    sources = {"a": files("in/a.jsonl"), "b": files("in/b.jsonl")}
    given = {"near": False, "threshold": 0.8}
    off = run_all(params_of(sources, dedup=given))
    assert "repeated_paragraphs" not in off["dedup"] and off["shard"]["kept"] == 22
    digests = []
    for workers in (1, 2):
        told = run_all(params_of(sources, dedup={**given, "paragraphs": True}, runtime={"workers": workers}))
        digests.append(digest_of(Path("data/shards")))
    assert digests[0] == digests[1]
    assert told["dedup"]["repeated_paragraphs"] == 21 and told["dedup"]["kept"] == 22
    left = texts_in("data/shards/train") + texts_in("data/shards/validation")
    assert sorted(left) == sorted([f"{article(0)}\n\n{licence}", *map(article, range(1, 20)), article(30)])
    funnel = read_json(Path("data/shards/funnel.json"))
    assert funnel["changed"] == {"repeated_paragraphs_removed": 19}
    assert (funnel["seen"], funnel["kept"], funnel["dropped"]) == (22, 21, {"repeated_paragraphs_only": 1})
    run_all(params_of(sources, dedup=given))
    assert not Path("data/dedup/paragraphs.arrow").exists()


def test_rules_switched_on_in_params(here):
    prose = "It was the best of times, and it was the worst of times. "
    write_jsonl(
        "in/a.jsonl", [prose * 9 + article(n) for n in range(5)] + [article(9) + " mail a@b.de {", prose * 5 + "{ x"]
    )
    source, base = {"a": files("in/a.jsonl")}, {"min_chars": 50}
    before = run_all(params_of(source, clean=base))
    assert before["clean-a"]["kept"] == 7
    given = {
        **base,
        "rules": ["gopher", "c4_curly_bracket"],
        "rules_off": ["gopher_stop_words", "gopher_repeated_ngrams"],
    }
    told = run_all(params_of(source, clean={**given, "mask": ["email"], "languages": ["en"]}))["clean-a"]
    assert (
        told["dropped_c4_curly_bracket"] == 2
        and told["kept"] + sum(count for key, count in told.items() if key.startswith("dropped_")) == 7
    )
    with pytest.raises(BadParams, match=r"clean.languages has xx, which cannot be told. It takes: .* en, "):
        clean.run(params_of(source, clean={"languages": ["en", "xx"]}), "a")
    with pytest.raises(ValueError, match="gopher_word"):
        params_of(source, clean={"rules": ["gopher_word"]})


def test_evaluation_text_is_counted_or_cut_out(here):
    planted = [" ".join(f"eval{number}x{place}" for place in range(6 + number)) for number in range(12)]
    Path("eval").mkdir()
    Path("eval/dev.tsv").write_text("index\tsentence\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(planted)))
    write_jsonl("eval/qa/test.jsonl", ["never in the corpus, this one here"])
    texts = [article(n) + (f" {planted[n].upper()}! " + article(n + 500) if n < 12 else "") for n in range(60)]
    write_jsonl("in/a.jsonl", [*texts, planted[11], article(3)])
    told, digests = {}, {}
    for mode in ("off", "report", "remove"):
        given = {"mode": mode, "path": "eval"}
        params = params_of({"a": files("in/a.jsonl")}, decontaminate=given, clean={"min_chars": 30})
        told[mode] = run_all(params)["shard"]
        digests[mode] = {split: digest_of(Path("data/shards") / split) for split in ("train", "validation")}
        table = Path("data/shards/decontamination.json")
        assert table.exists() == (mode != "off")
        if mode == "off":
            assert "evaluation_texts" not in told["off"]
            continue
        assert read_json(table) == {
            "mode": mode,
            "sets": {
                "dev.tsv": {"texts": 12, "too_short": 14, "found": 12, "documents": 13},
                "qa": {"texts": 1, "too_short": 0, "found": 0, "documents": 0},
            },
        }
        assert told[mode]["evaluation_texts_found"] == 12 and told[mode]["contaminated_documents"] == 13
    assert digests["report"] == digests["off"] != digests["remove"]
    left = texts_in("data/shards/train") + texts_in("data/shards/validation")
    assert len(left) == 61 and not any("eval" in text.lower() for text in left)
    assert article(3) + "\n\n" + article(503) in left
    funnel = read_json(Path("data/shards/funnel.json"))
    assert (funnel["seen"], funnel["kept"], funnel["dropped"]) == (62, 61, {"evaluation_text_only": 1})
    assert funnel["changed"] == {"evaluation_text_removed": 12}
    assert funnel["examples"]["evaluation_text_removed"][0] == planted[0].upper() + "!"


def test_a_list_of_addresses(here):
    write_jsonl("set/b.jsonl", [article(n) for n in range(3)])
    Path("set/a.txt.gz").write_bytes(gzip.compress(article(9).encode()))
    listed = [Path("set/b.jsonl"), Path("set/a.txt.gz")]
    Path("list.txt").write_text("".join(f"{digest_of(path)}  {path.absolute().as_uri()}\n" for path in listed))
    params = params_of({"far": {"kind": "http", "path": "list.txt"}})
    assert download.run(params, "far")["kept"] == 4
    assert texts_in("data/raw/far") == [*(article(n) for n in range(3)), article(9)]
    with pytest.raises(ValueError, match="needs the key sha256"):
        params_of({"far": {"kind": "http", "path": "list.txt", "url": "https://a/b"}})


def test_an_unknown_source_and_a_glob_in_the_path_are_named(here):
    with pytest.raises(BadParams, match=r"There is no source b. corpus.sources has: a"):
        download.run(params_of({"a": files("in")}), "b")
    with pytest.raises(ValueError, match="put the glob under pattern"):
        params_of({"a": files("in/*.txt")})


def test_as_processes_one_line_and_exit_codes(here):
    write_jsonl("in/a.jsonl", [article(n) for n in range(10)])
    sources = {"a": files("in/a.jsonl"), "gone": files("in/nowhere.txt")}
    Path("params.yaml").write_text(yaml.safe_dump({**BASE, "corpus": {"sources": sources}}), encoding="utf8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def stage(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True)

    done = stage("tasks.download", "a")
    assert done.returncode == 0 and read_json(Path("metrics/download-a.json"))["kept"] == 10
    failed = stage("tasks.download", "gone")
    assert failed.returncode == 1 and not Path("data/raw/gone").exists()
    assert failed.stderr == (
        "download-gone: There is no file or folder in/nowhere.txt. Set corpus.sources.gone.path to one that exists.\n"
    )


@pytest.mark.skipif(not WIKI.is_file(), reason="the real Wikipedia text is not here")
def test_a_real_wikiextractor_file(here):
    told = run_all(params_of({"wiki": files(str(WIKI))}))
    raw = WIKI.read_bytes()
    assert told["download-wiki"]["seen"] == raw.count(b"<doc ") and told["download-wiki"]["dropped_title_only"] > 100
    assert told["shard"]["kept"] > 200
    assert not any("<doc" in text or "&amp;" in text or "\n\n\n" in text for text in texts_in("data/shards/train"))


def test_a_source_that_was_taken_out_is_set_aside_and_changes_nothing(here):
    write_jsonl("in/a.jsonl", [article(n) for n in range(30)])
    write_jsonl("in/b.jsonl", [article(n) for n in range(20, 40)])
    alone = params_of({"a": files("in/a.jsonl")})
    run_all(alone)
    before = digest_of(Path("data"))
    run_all(params_of({"a": files("in/a.jsonl"), "b": files("in/b.jsonl")}))
    assert digest_of(Path("data")) != before
    (Path("data/clean") / ".c.tmp").mkdir()
    dedup.run(alone)
    shard.run(alone)
    assert digest_of(Path("data")) == before
    assert len(texts_in(".work/removed/raw/b")) == 20 and Path("data/clean/.c.tmp").is_dir()
