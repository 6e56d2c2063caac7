"""Files in columns and SQuAD's JSON: what is read, what is mended, and one line for each fault."""

import json
from pathlib import Path

import pytest

from roberta_core.errors import BadInput
from roberta_core.own.conll import Sentences, read_conll, tag_names, unseen_tags
from roberta_core.own.split import contradictory
from roberta_core.own.squad import Question, Questions, read_squad

DATA = Path(__file__).parents[4] / "shared" / "data"


def columns(tmp_path, text: str, name: str = "t.conll") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf8")
    return file


def test_columns_by_tabs_or_blanks(tmp_path):
    tabbed = columns(tmp_path, "# id = 1\nNew York\tB-loc\nis\tO\n\n\t\nAnn\tB-per\nB.\tI-per\n")
    rows = read_conll(tabbed, 1, 2, True)
    assert rows.words == [["New York", "is"], ["Ann", "B."]] and rows.tags == [["B-loc", "O"], ["B-per", "I-per"]]
    assert rows.lines == [1, 6] and rows.notes == [] and rows.keys() == ["New York is", "Ann B."]
    blanks = columns(tmp_path, "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n", "blanks.conll")
    rows = read_conll(blanks, 1, -1, True)
    assert rows.words == [["EU", "rejects"]] and rows.tags == [["B-ORG", "O"]]
    assert read_conll(blanks, 1, 2, False).tags == [["NNP", "VBZ"]]
    assert tag_names(read_conll(tabbed, 1, 2, True), tabbed) == ["O", "B-loc", "B-per", "I-per"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\tO\nb\tPER\n", r"line 2: 'PER' is neither O nor B-… or I-….*metric: accuracy"),
        ("a\tO\nb\tB-\n", r"line 2: 'B-' is neither"),
        ("a\tO\nb\n", r"1 of 1 rows cannot be used: .*line 2: 1 columns, and column 2 is asked for: b"),
        ("\tO\n", "the token is empty"),
        ("\n\n", "has no rows"),
    ],
)
def test_faults_of_columns_get_one_line(tmp_path, text, told):
    with pytest.raises(BadInput, match=told):
        read_conll(columns(tmp_path, text), 1, 2, True)


def test_words_without_tags_are_not_their_own_tags(tmp_path):
    words = columns(tmp_path, "a\nb\n")
    for entities in (True, False):
        with pytest.raises(BadInput, match=r"line 1: 1 columns, of which 1 and -1 are one: a"):
            read_conll(words, 1, -1, entities)
        rows = read_conll(words, 1, -1, entities, may_hide=True)
        assert rows.words == [["a", "b"]] and rows.tags == [] and "hides its tags" in rows.notes[0]
    # the tag may stand before the token
    rows = read_conll(columns(tmp_path, "O a x\n"), 2, -3, True)
    assert rows.words == [["a"]] and rows.tags == [["O"]]


def test_tags_that_begin_inside_are_told(tmp_path):
    rows = read_conll(columns(tmp_path, "a\tI-x\nb\tI-x\nc\tI-y\n\nd\tB-x\ne\tI-x\n"), 1, 2, True)
    assert rows.tags[0] == ["I-x", "I-x", "I-y"]
    assert rows.notes == [
        f"2 entities begin without B-, and are counted as entities, as conlleval does ({tmp_path / 't.conll'}, line 1)"
    ]


def test_tags_unknown_or_hidden(tmp_path):
    train = read_conll(columns(tmp_path, "a\tB-x\nb\tO\n"), 1, 2, True)
    names = tag_names(train, tmp_path)
    dev = read_conll(columns(tmp_path, "a\tB-x\nb\tB-y\n"), 1, 2, True)
    assert "the tag 'B-y' never occurs in training: 1 token counts as wrong" in unseen_tags(dev, names, tmp_path)[0]
    with pytest.raises(BadInput, match="line 1: the tag 'B-y', like all others"):
        unseen_tags(read_conll(columns(tmp_path, "a\tB-y\nb\tO\n"), 1, 2, True), names, tmp_path)
    hidden = read_conll(columns(tmp_path, "a\nb\n\nc\n"), 1, 2, True, may_hide=True)
    assert hidden.words == [["a", "b"], ["c"]] and hidden.tags == [] and "hides its tags" in hidden.notes[0]
    with pytest.raises(BadInput, match="every token has the tag 'O'"):
        tag_names(read_conll(columns(tmp_path, "a\tO\nb\tO\n"), 1, 2, True), tmp_path)


def test_wnut_is_read_whole():
    folder = DATA / "wnut17"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    counts = {"wnut17train.conll": 3394, "emerging.dev.conll": 1009, "emerging.test.annotated": 1287}
    for name, sentences in counts.items():
        rows = read_conll(folder / name, 1, 2, True)
        assert len(rows) == sentences and not any("left out" in note for note in rows.notes)


CONTEXT = "The cat sat on the mat. The dog sat on the log."


def squad(tmp_path, *questions: dict, context: str = CONTEXT, **article) -> Path:
    file = tmp_path / "q.json"
    qas = [{"id": f"q{number}", "question": "Who?"} | each for number, each in enumerate(questions)]
    file.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]} | article]}))
    return file


def answer(text: str, start: int) -> dict:
    return {"answers": [{"text": text, "answer_start": start}]}


def test_questions_of_both_versions(tmp_path):
    file = squad(
        tmp_path, answer("The cat", 0), {"answers": [], "is_impossible": True}, answer("log", 43), title="Pets"
    )
    found = read_squad(file, training=True)
    assert [each.answers for each in found.rows] == [(("The cat", 0),), (), (("log", 43),)]
    assert found.keys() == ["Pets"] * 3 and found.has_unanswerable and not found.notes
    assert not found.take([0]).has_unanswerable and found.rows[2].id == "q2"


def test_answers_that_do_not_stand_where_they_say(tmp_path):
    many = [answer("The cat", 0)] * 120
    file = squad(tmp_path, answer("log", 7), answer("sat", 1), *many)
    found = read_squad(file, training=True)
    assert found.rows[0].answers == (("log", 43),), "the text stands once: moved"
    assert len(found) == 121, "the other stands twice: which one, nobody knows"
    assert "1 row left out (answer not in context)" in found.notes[0] and "paragraphs[0].qas[1]" in found.notes[0]
    assert "1 answers were moved" in found.notes[1]
    kept = read_squad(file, training=False)
    assert len(kept) == 122 and kept.rows[1].answers == (("sat", -1),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", '"data" is no list of articles'),
        ("{", "is no JSON"),
        ('{"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}', r"data\[0\]\.paragraphs\[0\]\.context is no text"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q"}]}]}]}',
            "neither answers nor is_impossible",
        ),
        ('{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": " ", "answers": []}]}]}]}', "empty text"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": []}]}]}]}',
            "no question has an answer",
        ),
        ('{"data": []}', "has no rows"),
    ],
)
def test_faults_of_questions_get_one_line(tmp_path, content, told):
    file = tmp_path / "q.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=told.replace("empty text", "1 of 1 rows cannot be used")):
        read_squad(file, training=True)


def test_a_test_set_may_hide_its_answers(tmp_path):
    found = read_squad(squad(tmp_path, {}, {}), training=False, may_hide=True)
    assert found.hidden and len(found) == 2 and not found.has_unanswerable and "hides its answers" in found.notes[0]


def test_xquad_is_read_whole():
    folder = DATA / "xquad"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    for name in ("xquad.en.json", "xquad.zh.json"):
        found = read_squad(folder / name, training=True)
        assert len(found) == 1190 and len(set(found.keys())) == 48
        for each in found.rows:
            text, start = each.answers[0]
            assert each.context[start : start + len(text)] == text


def test_equal_sentences_and_questions_with_other_labels_are_contradictory():
    words, tags = [["Ann", "left"]] * 3 + [["Bob"]], [["B-x", "O"], ["O", "O"], ["B-x", "O"], ["O"]]
    assert contradictory(Sentences(words, tags, [1, 4, 7, 10]).labelled_rows()) == (3, "Ann left")
    asked = [("Who?", "Ann met Bob.", "Ann"), ("Who?", "Ann met Bob.", "Bob"), ("Who?", "Ann left.", "Ann")]
    rows = [
        Question(str(at), question, context, ((answer, 0),), "t")
        for at, (question, context, answer) in enumerate(asked)
    ]
    assert contradictory(Questions(rows).labelled_rows()) == (2, "Who?\tAnn met Bob.")
    assert contradictory(Questions(rows[::2]).labelled_rows()) == (0, None)
