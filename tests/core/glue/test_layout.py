"""The official layout: every task's columns, raw quotes, byte order marks, and one clear line for each kind of damage."""

import pytest

from roberta_core.errors import BadInput, BadParams
from roberta_core.glue.layout import Split, read_file, read_split, write_file
from roberta_core.glue.metrics import score
from roberta_core.glue.tasks import AX_LABELLED, TASKS, TRAINED, task_named
from tests.core.glue.official import REAL, write_diagnostic, write_official

EXPECTED = {
    # first train row, its label; rows of train, dev, test
    "CoLA": (("One more and I'm \"giving up.",), 1, (3, 2, 1)),
    "SST-2": (("contains no wit ",), 0, (2, 2, 1)),
    "MRPC": (('He said " yes .', "Yes , he said ."), 1, (2, 2, 1)),
    "STS-B": (("A plane.", "A flute."), 0.25, (2, 1, 1)),
    "RTE": (("P", "H"), 1, (2, 1, 1)),
    "WNLI": (("A pin.", "The pin."), 1, (2, 1, 1)),
    "QNLI": (("When?", "In 1066."), 0, (2, 1, 1)),
    "QQP": (('How is "life?', "How is it?"), 0, (2, 1, 1)),
    "MNLI": (("Cream skimming.", "Product."), 1, (3, 3, 1)),
}

REAL_ROWS = {
    "CoLA": (8551, 1043, 1063),
    "SST-2": (67349, 872, 1821),
    "MRPC": (3668, 408, 1725),
    "STS-B": (5749, 1500, 1379),
    "RTE": (2490, 277, 3000),
    "WNLI": (635, 71, 146),
}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("glue"))


@pytest.mark.parametrize("name", EXPECTED)
def test_reads_the_official_layout(official, name):
    task = TASKS[name]
    train, dev, test = (read_split(official / name, task, split) for split in ("train", "dev", "test"))
    texts, label, rows = EXPECTED[name]
    first = train["train.tsv"]
    assert first.texts[0] == texts and first.labels[0] == label
    assert tuple(len(next(iter(split.values()))) for split in (train, dev, test)) == rows
    assert all(not rows.labels for rows in test.values()), "labels of test are hidden"
    assert first.index == list(range(len(first))) and first.broken == 0


def test_mnli_takes_the_gold_label_and_both_dev_files(official):
    dev = read_split(official / "MNLI", TASKS["MNLI"], "dev")
    assert list(dev) == ["dev_matched.tsv", "dev_mismatched.tsv"]
    assert dev["dev_matched.tsv"].labels == [1, 2, 0]
    assert dev["dev_matched.tsv"].texts[0] == ('He said "no', "He spoke")


@pytest.mark.parametrize("name", REAL_ROWS)
def test_real_files_have_the_rows_their_readme_counts(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is not here")
    task = TASKS[name]
    found = [read_split(REAL / name, task, split)[f"{split}.tsv"] for split in ("train", "dev", "test")]
    assert tuple(map(len, found)) == REAL_ROWS[name]
    assert sum(rows.broken for rows in found) == 0
    assert all(len(texts) == len(task.texts) and all(texts) for rows in found for texts in rows.texts)


def test_real_quotes_stay_as_they_are():
    if not (REAL / "MRPC").is_dir():
        pytest.skip(f"{REAL} is not here")
    dev = read_split(REAL / "MRPC", TASKS["MRPC"], "dev")["dev.tsv"]
    assert dev.texts[0][1].startswith('" The foodservice pie')
    assert sum(text.count('"') for texts in dev.texts for text in texts) == 272


def _expect_refused(tmp_path, task, split, content, *words):
    file = tmp_path / f"{split}.tsv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf8"))
    with pytest.raises(BadInput) as caught:
        read_file(file, TASKS[task], split)
    line = str(caught.value)
    assert "\n" not in line and str(file) in line
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"


RTE = "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n1\tA\tB\tnot_entailment\n"


@pytest.mark.parametrize(
    ("task", "split", "content", "words"),
    [
        ("RTE", "train", RTE.replace("sentence2", "hypothesis"), ("line 1", "column sentence2 is missing")),
        ("RTE", "train", RTE.replace("label", "gold"), ("line 1", "column label is missing")),
        (
            "RTE",
            "train",
            RTE + "2\tA\tB\tmaybe\n",
            ("line 4", "column label", "'maybe'", "entailment, not_entailment"),
        ),
        ("RTE", "train", RTE.replace("B\tnot", "B not"), ("line 3", "3 fields instead of 4")),
        ("RTE", "train", RTE.replace("1\tA", "\n1\tA"), ("line 3", "0 fields instead of 4")),
        ("RTE", "train", RTE.replace("not_entailment", "entailment"), ("column label", "not_entailment never occurs")),
        ("RTE", "train", RTE.split("\n")[0] + "\n", ("no rows",)),
        ("RTE", "train", "", ("line 1", "found: nothing")),
        ("RTE", "train", RTE.encode() + b"2\t\xff\xfe\tB\tentailment\n", ("line 4", "not UTF-8")),
        ("RTE", "test", "index\tsentence1\tsentence2\n0\tA\n", ("line 2", "2 fields instead of 3")),
        ("CoLA", "train", "sentence\tlabel\nGood.\t1\n", ("line 1", "2 fields instead of 4")),
        ("CoLA", "train", "x\t1\t\tGood.\nx\t2\t\tBad.\n", ("line 2", "column label", "'2'")),
        ("STS-B", "dev", "sentence1\tsentence2\tscore\nA\tB\t5.1\n", ("line 2", "column score", "'5.1' is no score")),
        ("STS-B", "dev", "sentence1\tsentence2\tscore\nA\tB\tnan\n", ("line 2", "column score")),
        ("STS-B", "dev", "sentence1\tsentence2\tscore\nA\tB\tgood\n", ("line 2", "column score", "'good'")),
    ],
)
def test_damage_gets_one_line_with_file_line_and_column(tmp_path, task, split, content, words):
    _expect_refused(tmp_path, task, split, content, *words)


def test_a_missing_file_is_named_and_a_missing_test_is_none(official, tmp_path):
    with pytest.raises(BadInput, match=r"dev\.tsv is missing"):
        read_file(official / "RTE" / "nowhere" / "dev.tsv", TASKS["RTE"], "dev")
    assert read_split(tmp_path, TASKS["RTE"], "test") == {}


def test_a_few_broken_rows_in_thousands_are_counted_and_left_out(tmp_path, capsys):
    rows = [f"{number}\tA\tB\t{'not_' * (number % 2)}entailment" for number in range(2999)]
    rows.insert(1000, "1000\tA\tB")
    file = tmp_path / "train.tsv"
    file.write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]), encoding="utf8")
    found = read_file(file, TASKS["RTE"], "train")
    assert len(found) == 2999 and found.broken == 1
    assert 1000 not in found.index and found.index[-1] == 2999
    assert "line 1002: 3 fields instead of 4" in capsys.readouterr().err


def test_unusual_line_ends_inside_a_text_do_not_end_the_row(tmp_path):
    file = tmp_path / "dev.tsv"
    file.write_text("sentence\tlabel\na\u2028b\x0bc\x85d\re\t1\n", encoding="utf8", newline="\n")
    assert read_file(file, TASKS["SST-2"], "dev").texts == [("a\u2028b\x0bc\x85d\re",)]


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_written_reads_back_with_the_official_header(tmp_path, official, name):
    task = TASKS[name]
    for split in ("train", "dev", "test"):
        file = task.files(split)[0]
        texts = [
            ('a "b"', "c")[: len(task.texts)],
            ("tab\there\nline", "")[: len(task.texts)],
            ("x", "y")[: len(task.texts)],
        ]
        labels = [0.0, 2.5, 5.0] if not task.values else [0, 1, len(task.values) - 1]
        rows = Split(texts, labels if split != "test" else [], [0, 1, 2])
        write_file(tmp_path / file, task, split, rows, "hand")
        back = read_file(tmp_path / file, task, split)
        assert back.texts == [tuple(" ".join(text.split()) for text in each) for each in texts]
        assert back.labels == rows.labels
        if split not in task.headerless:
            ours, theirs = (
                (root / file).read_text(encoding="utf-8-sig").split("\n")[0] for root in (tmp_path, official / name)
            )
            assert ours == theirs.rstrip("\r")


def test_the_diagnostic_has_no_train_and_is_read_with_and_without_labels(tmp_path):
    folder = write_diagnostic(tmp_path / "AX")
    test = read_split(folder, TASKS["AX"], "test")["diagnostic.tsv"]
    full = read_split(folder, AX_LABELLED, "dev")["diagnostic-full.tsv"]
    assert test.texts == full.texts and test.texts[1] == ('It "rains.', "It rains.")
    assert test.labels == [] and full.labels == [2, 0], "the ids are MNLI's"
    assert read_split(folder, TASKS["AX"], "train") == read_split(folder, TASKS["AX"], "dev") == {}
    assert score(AX_LABELLED, [2, 0, 1], [2, 0, 1])[0] == {"mcc": 1.0}
    with pytest.raises(BadParams, match="the model of MNLI predicts it"):
        task_named("AX")


def test_a_diagnostic_with_an_unknown_label_is_refused(tmp_path):
    file = write_diagnostic(tmp_path / "AX") / "diagnostic-full.tsv"
    file.write_text(file.read_text().replace("contradiction", "-"))
    with pytest.raises(BadInput, match=r"diagnostic-full\.tsv, line 2, column Label: unknown label '-'"):
        read_split(tmp_path / "AX", AX_LABELLED, "dev")


QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
QQP_BROKEN = ["7\t1\t2\tIs it?", "8\t1\t2\tIs it?\tWas", "it?\t1"]
"""As in the official train file: a question that is missing, and one with a line break in it, which makes two broken rows."""


def test_broken_rows_of_qqp_are_counted_and_those_of_a_damaged_file_refused(tmp_path, capsys):
    rows = [f'{number}\t1\t2\tIs {number}?\tWas "it?\t{number % 2}' for number in range(4000)]
    file = tmp_path / "train.tsv"
    file.write_text("\n".join([QQP, *rows[:9], *QQP_BROKEN, *rows[9:]]) + "\n", encoding="utf8")
    found = read_file(file, TASKS["QQP"], "train")
    assert len(found) == 4000 and found.broken == 3 and found.index[9] == 12
    assert "line 11: 4 fields instead of 6 (3 such rows): left out" in capsys.readouterr().err
    file.write_text("\n".join([QQP, *rows[:2500], *QQP_BROKEN]) + "\n", encoding="utf8")
    with pytest.raises(BadInput, match="line 2502: 4 fields instead of 6"):
        read_file(file, TASKS["QQP"], "train")
