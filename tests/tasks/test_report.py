"""The report: every number is on the page, nothing from the corpus can run, nothing is loaded, gaps are polite."""

import datetime
import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from roberta_core.atomic import read_json, write_json
from tasks.averages import PUBLISHED, shown
from tasks.charts import Line, Step, apart, funnel_chart, line_chart, ticks
from tasks.examples import PROMPTS, fill_mask_examples, held_out_sentences, hide_word
from tasks.report import gate_table, write_report
from tests.tasks.report_fixture import (
    DOCUMENTS,
    HOSTILE,
    MAJORITY,
    OVERVIEW,
    SCORES,
    TASKS,
    TFIDF,
    finished_run,
    with_encoder,
)

DATE = datetime.datetime(2026, 11, 20, 9, 30, tzinfo=datetime.UTC)
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its visible text, and whether every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == [], f"not closed: {self.open}"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return with_encoder(finished_run(tmp_path_factory.mktemp("run"), HOSTILE))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run, OVERVIEW, DATE).read_text(encoding="utf8"))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def test_the_headline_numbers_are_there(page: Page):
    for said in (
        "20 November 2026",
        "24,795 of 49,434 found",
        "6.2M",
        "1.8M trained on",
        "6.62",
        "unigram entropy 7.31",
    ):
        assert said in page.text
    for said in ("17.4%", "64.1", "8 tasks, WNLI left out", "5.3M", "900 steps of 16 × 128 tokens"):
        assert said in page.text


def test_the_funnel_has_each_step_and_each_reason_with_its_examples(page: Page):
    for column in range(4):
        assert f"{sum(counts[column] for counts in DOCUMENTS.values()):,}" in page.text
    for reason in ("not utf8", "too short", "too many symbols", "exact duplicate", "near duplicate"):
        assert reason in page.text
    assert "Return a copy of the array, flattened." in page.text
    assert "24,283 documents are for training, 512 are held out" in page.text
    assert "Altered, and kept: control characters 74." in page.text


@pytest.mark.parametrize("task", TASKS)
def test_a_score_stands_beside_its_baselines_and_its_protocol(page: Page, task: str):
    row = page.text[page.text.index("task score") :]
    row = row[row.index(f"{task} ") :]
    numbers = re.findall(r"-?\d+\.\d", row[row.index("training rows") :])
    also = 1 if task in ("CoLA", "MRPC", "STS-B", "QQP", "MNLI") else 0
    assert numbers[also : also + 3] == [f"{100 * each[task]:.1f}" for each in (SCORES, MAJORITY, TFIDF)]
    assert (
        f"{', '.join(TASKS)} : quick: dev split, 3 seeds (1, 2, 3), 2 epochs, batch 32, peak rate 0.0001" in page.text
    )


def test_speed_registry_and_parameters_are_there(page: Page):
    assert "12.4k tokens a second, 0.32 TFLOP/s in bf16 on cpu" in page.text
    assert "151.2 s · 1.8 GB" in page.text
    assert OVERVIEW[0]["promoted"] in page.text and OVERVIEW[1]["promoted"] in page.text
    assert "max_steps: 900" in page.text


def test_the_loss_curve_shows_the_plateau_and_both_curves(page: Page):
    assert "The held-out loss ends 0.69 nats below the plateau" in page.text
    assert "plateau: unigram entropy 7.31" in page.text
    assert "held out 6.62" in page.text and "training 6." in page.text


def test_sample_tasks_are_never_called_glue_and_carry_their_description(page: Page):
    assert "they are not GLUE" in page.text and "RoBERTa-base" not in page.text
    for task in TASKS:
        assert f"how the rows of {task} are made" in page.text


def test_real_glue_gets_the_published_row_with_its_protocol(fresh: Path):
    finished_run(fresh, data="local")
    page = Page(write_report(fresh, (), DATE).read_text(encoding="utf8"))
    assert "ample task" not in page.text
    assert "not started from MNLI; accuracy for MRPC and QQP (Liu et al. 2019)" in page.text
    table = page.text[page.text.index("Beside published lines") :]
    for line in PUBLISHED:
        told = " ".join(f"{line.scores[task]:.1f}" for task in TASKS if task != "WNLI")
        assert f"{line.name} {told} {shown(sum(line.scores.values()) / 8)}" in table, "the mean over the paper's eight"
        assert f"{line.name} : {line.protocol}" in table
    assert "in the leaderboard's way" in table
    seeds = f"Median of 3 seeds, {100 * (SCORES['RTE'] - 0.031):.1f} to {100 * (SCORES['RTE'] + 0.027):.1f};"
    assert seeds in page.text


def test_own_data_in_glues_layout_gets_no_published_row(fresh: Path):
    finished_run(fresh, data="local")
    for task in TASKS:
        results = read_json(fresh / f"models/glue/{task}/results.json")
        write_json(
            fresh / f"models/glue/{task}/results.json", results | {"rows": {"train": 1000, "dev": 99, "test": 99}}
        )
    assert "RoBERTa-base" not in Page(write_report(fresh, (), DATE).read_text(encoding="utf8")).text


def test_text_of_the_corpus_cannot_run(run: Path, page: Page):
    source = (run / "reports/index.html").read_text(encoding="utf8")
    assert html.escape(HOSTILE, quote=False).replace("'", "&#39;") in source
    assert HOSTILE in page.text
    assert [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed")] == []
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []


def test_only_http_addresses_become_links(page: Page):
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [OVERVIEW[0]["run_url"]]


def test_hostile_names_and_parameters_are_escaped(fresh: Path):
    results = read_json(fresh / "models/glue/CoLA/results.json")
    results["protocol"]["selection"] = results["metric"] = HOSTILE
    for name in ("majority", "tfidf"):
        results["baselines"][name][HOSTILE] = 0.5
    write_json(fresh / "models/glue/CoLA/results.json", results)
    (fresh / "params.yaml").write_text((fresh / "params.yaml").read_text() + f"# {HOSTILE}\n")
    overview = [{**OVERVIEW[0], "name": HOSTILE, "promoted": HOSTILE, "alias": '"><script>'}]
    page = Page(write_report(fresh, overview, DATE).read_text(encoding="utf8"))
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any(tag == "img" for tag, _ in page.elements)


def test_the_page_loads_nothing(run: Path, page: Page):
    for tag, attributes in page.elements:
        assert "src" not in attributes and "srcset" not in attributes
        if tag == "link":
            assert attributes["href"].startswith("data:")
    source = (run / "reports/index.html").read_text(encoding="utf8")
    style = source[source.index("<style>") : source.index("</style>")]
    assert "@import" not in style and "url(" not in style
    script = source[source.index("<script>") : source.index("</script>")]
    assert not re.search(r"fetch|XMLHttp|import\(|https://", script)


def test_the_same_files_and_date_give_the_same_bytes(run: Path):
    first = write_report(run, OVERVIEW, DATE).read_bytes()
    assert write_report(run, OVERVIEW, DATE).read_bytes() == first
    later = write_report(run, OVERVIEW, DATE.replace(day=21)).read_text(encoding="utf8")
    assert later.replace("2026-11-21", "2026-11-20").replace("21 November", "20 November").encode() == first


def test_before_the_first_run_the_page_says_what_is_to_come(tmp_path: Path):
    finished = finished_run(tmp_path / "finished")
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(finished / "params.yaml", empty)
    page = Page(write_report(empty, (), DATE).read_text(encoding="utf8"))
    assert page.text.count("once the stage") == 4
    assert "No model is registered yet" in page.text


GAPS = {
    "data/raw": "once the stage download has run",
    "data/clean": "24,795 of 49,434",
    "data/dedup": "30,451 of 49,434",
    "data/shards": "24,795 of 49,434",
    "models/encoder": "gaps of a few sentences will stand here",
    "models/glue": "The scores beside their protocol will stand here",
    "models/glue/RTE": "Not fine-tuned yet: RTE.",
    "metrics": "held out 6.62",
    "plots": "The loss curve will stand here",
    "plots/validation.csv": "training 6.",
    "logs": "Times will stand here",
}


@pytest.mark.parametrize("missing", GAPS)
def test_a_missing_piece_leaves_a_gap_and_the_rest_stands(fresh: Path, missing: str):
    path = fresh / missing
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    text = Page(write_report(fresh, (), DATE).read_text(encoding="utf8")).text
    assert GAPS[missing] in text and "max_steps: 900" in text


def test_no_single_file_is_needed_but_the_parameters(fresh: Path):
    files = [
        path for path in sorted(fresh.rglob("*")) if path.is_file() and path.suffix in (".json", ".csv", ".arrow")
    ]
    assert len(files) > 40
    aside = fresh.parent / "aside"
    for path in files:
        path.rename(aside)
        assert "max_steps: 900" in write_report(fresh, (), DATE).read_text(encoding="utf8"), path
        aside.rename(path)


def test_a_run_on_the_plateau_says_so(fresh: Path):
    numbers = read_json(fresh / "metrics/pretrain.json")
    write_json(fresh / "metrics/pretrain.json", numbers | {"on_plateau": 1, "gain_over_unigram": -0.02})
    text = Page(write_report(fresh, (), DATE).read_text(encoding="utf8")).text
    assert "not come below the unigram plateau" in text and "0.02 nats above the plateau" in text


def test_fill_mask_examples_are_probabilities_of_the_encoder(run: Path, page: Page):
    examples = fill_mask_examples(run / "models/encoder", run / "data/shards/validation", held_out=3)
    assert len(examples) == 3 + len(PROMPTS)
    for each in examples:
        shares = [share for _, share in each.guesses]
        assert len(shares) == 5 and shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1
        assert (each.rank > 0) == bool(each.word)
        assert f"{each.before} \xa0 {each.after}".split("\xa0")[0].split()[0] in page.text
    assert examples == fill_mask_examples(run / "models/encoder", run / "data/shards/validation", held_out=3)


def test_held_out_sentences_are_plain_prose(run: Path):
    sentences = held_out_sentences(run / "data/shards/validation", 5)
    assert len(sentences) == len(set(sentences)) == 5
    assert all("<" not in sentence and sentence.endswith(".") for sentence in sentences)


def test_a_hidden_word_is_one_token_and_the_sentence_stays_whole():
    sentence = "The value of the array is never empty."
    before, word, after = hide_word(sentence, lambda word: word == " array")
    assert (before, word, after) == ("The value of the ", "array", " is never empty.")
    assert hide_word(sentence, lambda word: False) is None


def test_ticks_are_round_numbers():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(6.5, 9.1, 6) == [6.5, 7, 7.5, 8, 8.5, 9]
    assert ticks(3, 3, 4) == [3]


def test_labels_are_kept_apart_in_order():
    placed = apart([10, 11, 50], 16)
    assert placed[1] - placed[0] >= 15.99 and placed[2] - placed[1] >= 15.99 and placed[2] == 50


def test_a_curve_of_one_point_and_a_flat_one_are_drawn():
    for points in ([(10, 7.0)], [(10, 7.0), (20, 7.0)], [(0, 0.0)]):
        svg = line_chart(
            [Line("loss", points, "main")], title="t", x_name="steps", shape="{:.2f}", width=360, height=200
        )
        assert "nan" not in svg and "inf" not in svg and 'class="line main"' in svg


def test_the_funnels_bars_are_in_proportion():
    svg = funnel_chart([Step("found", {"a": 1000}), Step("clean", {"a": 250})], title="t", width=760, height=250)
    tall = [float(height) for height in re.findall(r'<rect class="bar".*?height="([\d.]+)"', svg)]
    assert tall[1] / tall[0] == pytest.approx(0.25, abs=0.01)
    assert "−750 (75.0%)" in svg


def test_a_funnel_of_nothing_is_drawn():
    assert "nan" not in funnel_chart(
        [Step("found", {"a": 0}), Step("clean", {"a": 0})], title="t", width=360, height=200
    )


def test_the_gate_shows_its_table():
    """The same rows and checks as `roberta compare` and Prefect's page."""
    from roberta_core.bootstrap import Gain
    from tasks.gate import Check, Verdict

    mean = Gain("mean", "", 300, 0.4, 0.5, 0.1, 0.01, 0.2, 0.021, 1, True)
    told = Verdict(
        False, "not promoted", [Gain("RTE", "accuracy", *[getattr(mean, key) for key in list(vars(mean))[2:]]), mean],
        [Check("p below 0.01", "0.021", False)],
    ).as_json()  # fmt: skip
    shown = gate_table(told)
    assert shown["gate_rows"] == [
        ("RTE", "accuracy", "300", "0.4000", "0.5000", "+0.1000", "+0.0100 to +0.2000", "0.021", "1")
    ]
    assert shown["gate_checks"] == [("p below 0.01", "0.021", "failed")]
    assert gate_table("") == {"gate_headers": shown["gate_headers"], "gate_rows": [], "gate_checks": []}
