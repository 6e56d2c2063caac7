"""Sample tasks: the same bytes from the same seed, balanced, no sentence in two splits, and solvable as described."""

import random
from collections import Counter
from pydoc_data.topics import topics

import pytest

from roberta_core.errors import BadInput
from roberta_core.glue.baselines import tfidf
from roberta_core.glue.metrics import score
from roberta_core.glue.sample import CELLS, DESCRIPTIONS, QUESTIONS, WORDINGS, passages, pool, sample_tasks, sentences
from roberta_core.glue.tasks import TASKS, TRAINED

ROWS = 96
SUBJECTS = "parser river module engine teacher garden socket window number letter market branch".split()  # noqa: SIM905
VERBS = "returns follows covers carries accepts moves shows leaves".split()  # noqa: SIM905
PLACES = "in the old house|on every page|for each user|under the table|within the limit".split("|")  # noqa: SIM905


def make_documents(count=400):
    """Documents of plain sentences, a third of them with a negation, a third with a number; each sentence is unique."""
    draw = random.Random(7)
    documents = []
    for number in range(count):
        lines = []
        for line in range(6):
            kind = ("never", f"{draw.randrange(10, 99)}", "often")[line % 3]
            mark = f"mark{'abcdefghij'[number % 10]}{chr(97 + number // 10 % 26)}{chr(97 + number // 260)}{'uvwxyz'[line]}"
            what = f"{kind} {draw.choice(VERBS)} one {draw.choice(SUBJECTS)} {draw.choice(PLACES)}"
            lines.append(f"The {draw.choice(SUBJECTS)} {what} {mark}.")
        documents.append((f"doc{number}", " ".join(lines)))
    return documents


@pytest.fixture(scope="module")
def documents():
    return make_documents()


@pytest.fixture(scope="module")
def made(documents):
    return sample_tasks(documents, [TASKS[name] for name in TRAINED], ROWS, seed=3)


def test_every_task_has_cells_and_a_description_and_balanced_cells():
    assert list(CELLS) == list(DESCRIPTIONS) == list(TRAINED)
    for name, cells in CELLS.items():
        counts = Counter(label for label, _, _ in cells)
        assert len(set(counts.values())) == 1 and len(counts) == (len(TASKS[name].values) or 6)


def test_labels_are_equally_frequent_and_files_complete(made):
    for name, files in made.items():
        task = TASKS[name]
        assert list(files) == [file for split in ("train", "dev", "test") for file in task.files(split)]
        for file, rows in files.items():
            counts = Counter(rows.labels)
            assert len(set(counts.values())) == 1, (name, file, counts)
            assert len(counts) == (len(task.values) or 6)
            asked = ROWS if file == "train.tsv" else ROWS // 4
            assert asked - len(CELLS[name]) < len(rows) <= asked
            assert all(len(texts) == len(task.texts) and all(texts) for texts in rows.texts)


def test_the_seed_and_the_documents_alone_decide(made, documents):
    again = sample_tasks(
        random.Random(0).sample(documents, len(documents)), [TASKS[name] for name in TRAINED], ROWS, seed=3
    )
    assert again == made
    assert sample_tasks(documents, [TASKS["RTE"]], ROWS, seed=4)["RTE"] != made["RTE"]
    assert sample_tasks(documents, [TASKS["RTE"]], ROWS, seed=3)["RTE"] == made["RTE"], "other tasks do not matter"


def test_no_document_and_no_sentence_is_in_two_splits(documents):
    twice = [*documents, *((f"copy-{name}", text) for name, text in documents[:100])]
    found = pool(twice, seed=3, count=5000)
    held = {split: {sentence.document for sentence in found[split]} for split in found}
    texts = {split: [sentence.text for sentence in found[split]] for split in found}
    assert all(held.values())
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not held[one] & held[other]
        assert not set(texts[one]) & set(texts[other])
    assert sum(map(len, texts.values())) == len({text for each in texts.values() for text in each})


def test_no_first_text_of_dev_was_seen_in_train(made):
    for name in ("CoLA", "SST-2", "MRPC", "STS-B", "MNLI"):
        train = {texts[0] for texts in made[name]["train.tsv"].texts}
        for file, rows in made[name].items():
            assert file == "train.tsv" or not train & {texts[0] for texts in rows.texts}, (name, file)


def test_the_pool_is_bounded(documents):
    small = pool(documents, seed=3, count=50)
    assert len({sentence.document for each in small.values() for sentence in each}) <= 50


def _denied(text):
    return text.startswith("It is not true that ")


def test_labels_follow_from_how_rows_are_made(made):
    for (text,), label in zip(made["SST-2"]["train.tsv"].texts, made["SST-2"]["train.tsv"].labels):
        assert label == int("never" not in text)
    for (text,), label in zip(made["CoLA"]["dev.tsv"].texts, made["CoLA"]["dev.tsv"].labels):
        assert label == 0 or (text.startswith("The ") and text.endswith("."))
    for (one, two), label in zip(made["RTE"]["train.tsv"].texts, made["RTE"]["train.tsv"].labels):
        assert label == int(_denied(one) != _denied(two))
        assert two.removeprefix("It is not true that ") in one
    for (question, text), label in zip(made["QNLI"]["train.tsv"].texts, made["QNLI"]["train.tsv"].labels):
        number, negated = any(char.isdigit() for char in text), "never" in text
        assert number != negated
        assert label == int((question == QUESTIONS[0]) != number)
    kinds = [tuple(wording.split(" {}")[0] for wording in wordings) for wordings in WORDINGS]
    for pair, label in zip(made["QQP"]["train.tsv"].texts, made["QQP"]["train.tsv"].labels):
        kind = [next(at for at, fronts in enumerate(kinds) if text.startswith(fronts)) for text in pair]
        assert label == int(kind[0] == kind[1]) and pair[0] != pair[1]
    for (one, two), label in zip(made["STS-B"]["train.tsv"].texts, made["STS-B"]["train.tsv"].labels):
        words = one.split()
        if label:
            assert len(two.split()) == max(1, round(label / 5 * len(words))) and set(two.split()) <= set(words)
    for (one, two), label in zip(made["MNLI"]["train.tsv"].texts, made["MNLI"]["train.tsv"].labels):
        assert (label == 2) == _denied(two) and (label == 1) == (two.removeprefix("It is not true that ") not in one)


def test_a_bag_of_words_solves_sst2_and_is_at_chance_where_both_texts_are_needed(made):
    def reached(name):
        task, files = TASKS[name], made[name]
        dev = files[task.files("dev")[0]]
        return score(task, dev.labels, tfidf(task, files["train.tsv"], [dev])[0])[0]["accuracy"]

    assert reached("SST-2") > 0.9
    assert all(reached(name) < 0.75 for name in ("CoLA", "QNLI", "RTE", "QQP"))


def test_python_s_own_topics_give_every_task():
    made = sample_tasks(sorted(topics.items()), [TASKS[name] for name in TRAINED], 64, seed=1907)
    assert all(len(files["train.tsv"]) >= 24 for files in made.values())


def test_too_small_a_corpus_is_told():
    with pytest.raises(BadInput, match=r"sample task CoLA .* 6 fit sentences.* Add documents"):
        sample_tasks(make_documents(1), [TASKS["CoLA"]], ROWS, seed=3)
    with pytest.raises(BadInput, match="0 fit sentences"):
        sample_tasks([("a", "x = 1")], [TASKS["CoLA"]], ROWS, seed=3)


def test_scripts_without_spaces_are_cut_into_characters():
    found = sentences("河水从山上流下来经过许多城市。这座桥没有名字也没有人记得它。", "doc")
    assert [sentence.text for sentence in found] == [
        "河水从山上流下来经过许多城市。",
        "这座桥没有名字也没有人记得它。",
    ]
    assert found[0].joiner == "" and found[0].following is found[1] and found[1].following is None


def test_sentences_are_prose_and_know_what_follows():
    text = (
        "The first sentence is here and plain.\nIt goes on in a second line here.\n\n"
        "x = call(a, b)[0] + {1: 2}\n\nshort one. The last sentence stands on its own here."
    )
    found = sentences(text, "doc")
    assert [sentence.text for sentence in found] == [
        "The first sentence is here and plain.",
        "It goes on in a second line here.",
        "The last sentence stands on its own here.",
    ]
    assert found[0].following is found[1] and found[1].following is None


def test_passages_lose_nothing_but_blank_lines():
    text = "\n\n".join(f"paragraph {number} " + "word " * (number * 13 % 700) for number in range(60))
    cut = list(passages(text))
    assert len(cut) > 3 and all(len(each) < 2 * 2000 + 200 for each in cut)
    assert "".join("".join(cut).split()) == "".join(text.split())
