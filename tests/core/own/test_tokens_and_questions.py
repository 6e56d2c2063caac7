"""Windows and labels of tokens and answers, against transformers' own features and against brute force."""

import numpy as np
import pytest
import torch

from roberta_core.data.tokenizer import load_tokenizer, open_tokenizer
from roberta_core.finetune import Recipe, finetune, predict
from roberta_core.model.folder import tokenizer_of
from roberta_core.own.labels import MultiLabel, Number
from roberta_core.own.questions import (
    MAX_ANSWER_TOKENS,
    Answering,
    Candidate,
    answers_of,
    frame_of,
    question_rows,
    text_of,
)
from roberta_core.own.squad import Question
from roberta_core.own.tokens import IGNORED, Tagging, by_sentence, token_rows
from tests.core.glue.tiny_encoder import write_encoder

CPU = torch.device("cpu")
TEXT = (
    "The cat sat on the mat, and the dog — 北京 — ran after it; nobody knew why the café 😀 was closed on Sunday. " * 3
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    more = "He asked where the question stands, and which answers were given to whom."
    return write_encoder(tmp_path_factory.mktemp("encoder"), TEXT + more)


@pytest.fixture
def tokenizer(encoder):
    return load_tokenizer(encoder)


def recipe(**changes) -> Recipe:
    values = {
        "max_length": 64, "epochs": 1, "max_steps": 0, "batch_size": 8, "peak_lr": 2e-3, "weight_decay": 0.0,
        "warmup_ratio": 0.1, "dropout": 0.0, "precision": "fp32",
    }  # fmt: skip
    return Recipe(**values | changes)


def test_labels_stand_on_first_sub_tokens(tokenizer):
    words = [["The", "caféteria", "in", "北京", ",", "😀"]]
    rows = token_rows(tokenizer, words, [[1, 2, 3, 4, 5, -1]], 64, 16)
    encoding = tokenizer.encode(" ".join(words[0]))
    assert list(rows.ids[0]) == encoding.ids and len(rows) == 1 and rows.strided == 0
    labelled = [(at, int(label)) for at, label in enumerate(rows.labels[0]) if label != IGNORED]
    starts, at = [], 0
    for word in words[0]:
        starts.append(at)
        at += len(word) + 1
    wide = [(place, offset) for place, offset in enumerate(encoding.offsets) if offset[1] > offset[0]]
    first = [next(place for place, (start, end) in wide if end > begin) for begin in starts]
    assert labelled == [(place, tag) for place, tag in zip(first, [1, 2, 3, 4, 5])], "the unknown one is ignored"
    assert rows.heads[0][1].tolist() == [0, 1, 2, 3, 4, 5]


def test_long_sentences_lose_no_word(tokenizer):
    words = [TEXT.split() * 3, ["short", "one"]]
    rows = token_rows(tokenizer, words, [], 24, 8)
    assert rows.strided == 1 and len(rows) > 10 and max(map(len, rows.ids)) == 24 and rows.labels == []
    assert {word for number, held, _ in rows.heads for word in held if number == 0} == set(range(len(words[0])))
    # a window's output at a token is (its window, its place): each word's comes from where it has most room
    outputs = [np.stack((np.full(len(ids), number), np.arange(len(ids))), 1) for number, ids in enumerate(rows.ids)]
    found = by_sentence(rows, outputs, words, 2)
    for word, (window, place) in enumerate(found[0].astype(int)):
        room = [
            min(at[held == word][0], len(ids) - 1 - at[held == word][0])
            for (number, held, at), ids in zip(rows.heads, rows.ids)
            if number == 0 and word in held
        ]
        assert min(place, len(rows.ids[window]) - 1 - place) == max(room)
    assert found[1].shape == (2, 2)


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_question_windows_are_transformers_features(tmp_path, encoder, family):
    transformers = pytest.importorskip("transformers")
    if family == "roberta":
        ours = load_tokenizer(encoder)
        theirs = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(encoder / "tokenizer.json"), pad_token="<pad>"
        )
    else:
        vocabulary = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *sorted(set(TEXT.lower().replace(".", " .").split())),
        ]
        vocabulary += [
            *"abcdefghijklmnopqrstuvwxyz",
            *(f"##{each}" for each in "abcdefghijklmnopqrstuvwxyz"),
            "?",
            ",",
        ]
        theirs = transformers.BertTokenizerFast(vocab={word: at for at, word in enumerate(vocabulary)})
        theirs.save_pretrained(tmp_path)
        ours = open_tokenizer(tmp_path)
    asked = [
        Question(str(n), question, context, (), "a")
        for n, (question, context) in enumerate(
            [("Who sat on the mat?", TEXT), ("Why?", "The cat."), ("Where?", TEXT)]
        )
    ]
    rows = question_rows(ours, asked, 40, 12, token_types=True, answers=False)
    expected = theirs(
        [each.question for each in asked], [each.context for each in asked], truncation="only_second", max_length=40,
        stride=12, return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
    )  # fmt: skip
    assert [each.tolist() for each in rows.ids] == expected["input_ids"] and rows.strided == 2
    if family == "bert":
        assert [each.tolist() for each in rows.types] == expected["token_type_ids"]
    assert [each.question for each in rows.windows] == expected["overflow_to_sample_mapping"]
    for number, window in enumerate(rows.windows):
        sides = expected.sequence_ids(number)
        inside = [offset for offset, side in zip(expected["offset_mapping"][number], sides) if side == 1]
        assert list(zip(window.starts.tolist(), window.ends.tolist())) == inside
        assert window.first == sides.index(1)


def test_answers_become_positions_that_give_them_back(tokenizer):
    context = TEXT.strip()
    words = ["The cat", "北京", "café", "😀", "Sunday", "dog — 北京 — ran", "on the mat,"]
    asked = [Question(word, "What?", context, ((word, context.index(word)),), "a") for word in words]
    asked.append(Question("none", "What?", context, (), "a"))
    rows = question_rows(tokenizer, asked, 48, 16)
    seen = set()
    for window, (start, end, first, last) in zip(rows.windows, rows.labels):
        assert first == window.first and last == first + len(window.starts)
        if start:
            span = Candidate(0.0, int(window.starts[start - first]), int(window.ends[end - first]))
            text, begin, stop = text_of(context, span)
            assert text == words[window.question] and context[begin:stop] == text
            seen.add(window.question)
        else:
            assert end == 0
    assert seen == set(range(len(words))), "each answer stands whole in some window"


def test_the_best_spans_are_the_best_of_all(tokenizer):
    asked = [Question("q", "What is it?", TEXT, (), "a"), Question("r", "Why?", "The cat.", (), "a")]
    rows = question_rows(tokenizer, asked, 64, 20, answers=False)
    draw = np.random.default_rng(2)
    outputs = [draw.normal(size=(len(ids), 2)) for ids in rows.ids]
    found = answers_of(rows, outputs, 2)
    for number in (0, 1):
        every = {}
        for window, output in zip(rows.windows, outputs):
            for i in range(len(window.starts)):
                for j in range(i, min(i + MAX_ANSWER_TOKENS, len(window.starts))):
                    place = (int(window.starts[i]), int(window.ends[j]))
                    if window.question == number and place[1] > place[0]:
                        score = output[window.first + i, 0] + output[window.first + j, 1]
                        every[place] = max(every.get(place, -1e9), score)
        best = sorted(every.values(), reverse=True)
        # of one window at least its 20 best are known
        assert [each.score for each in found[number].spans][:5] == pytest.approx(best[:5])
        null = min(out[0].sum() for window, out in zip(rows.windows, outputs) if window.question == number)
        assert found[number].null == pytest.approx(null)


def test_long_questions_are_cut_and_counted(tokenizer):
    asked = [Question("q", "why " * 200, "The cat sat.", (), "a")]
    rows = question_rows(tokenizer, asked, 64, 16, answers=False)
    assert rows.truncated == 1 and len(rows.ids[0]) <= 64 and len(rows.windows[0].starts) >= 3
    assert frame_of(tokenizer) == ([0], [2, 2], [2], (0, 0))


def test_a_tagger_learns_and_its_padding_does_not_count(encoder, tokenizer):
    words = [["cat", "sat"], ["dog", "ran", "on", "the", "mat"], ["the", "cat", "ran"], ["closed", "dog"]] * 8
    names = ("O", "B-pet")
    tags = [[int(word in ("cat", "dog")) for word in each] for each in words]
    rows = token_rows(tokenizer, words, tags, 64, 16)
    objective = Tagging("pets", names)
    model = finetune(encoder, objective, rows, recipe(epochs=6, peak_lr=5e-3), 1, CPU)
    found = by_sentence(rows, predict(objective, model, rows), words, 2)
    assert [each.argmax(1).tolist() for each in found] == tags
    alone = [predict(objective, model, token_rows(tokenizer, [each], [], 64, 16))[0] for each in words[:4]]
    for one, together in zip(alone, predict(objective, model, rows)):
        np.testing.assert_allclose(one, together, atol=1e-5)
    batch = objective.collate(rows, [0, 1, 2], CPU)
    with torch.no_grad():
        each = [
            float(objective.loss(model, objective.collate(rows, [row], CPU))) * len(words[row]) for row in range(3)
        ]
        assert float(objective.loss(model, batch)) == pytest.approx(sum(each) / 10, rel=1e-4)


def test_answers_are_learned(encoder, tokenizer):
    places = [("The cat sat on the mat.", "cat"), ("On Sunday nobody ran.", "Sunday"), ("The dog was closed.", "dog")]
    asked = [Question("q", "What?", text, ((word, text.index(word)),), "a") for text, word in places] * 6
    asked += [Question("n", "Why?", text, (), "a") for text, _ in places] * 6
    rows = question_rows(tokenizer, asked, 64, 16)
    objective = Answering("what")
    model = finetune(encoder, objective, rows, recipe(epochs=14, peak_lr=5e-3), 1, CPU)
    found = answers_of(rows, predict(objective, model, rows), len(asked))
    given = [
        text_of(each.context, one.spans[0])[0] if one.spans[0].score > one.null else ""
        for each, one in zip(asked, found)
    ]
    assert given == [each.answers[0][0] if each.answers else "" for each in asked]
    # question and padding take no part in the loss
    batch = objective.collate(rows, [0, 1, 2], CPU)
    with torch.no_grad():
        apart = [float(objective.loss(model, objective.collate(rows, [row], CPU))) for row in range(3)]
        assert float(objective.loss(model, batch)) == pytest.approx(np.mean(apart), rel=1e-4)


def test_several_labels_and_numbers_are_learned(encoder, tokenizer):
    from roberta_core.finetune import tokenise
    from roberta_core.finetune.objectives import Regression

    texts = [("The cat sat",), ("The dog ran",), ("cat and dog",), ("nobody knew",)] * 8
    several = [(0,), (1,), (0, 1), ()] * 8
    rows = tokenise(tokenizer, texts, several, 64)
    objective = MultiLabel("pets", ("cat", "dog"))
    model = finetune(encoder, objective, rows, recipe(epochs=12, peak_lr=5e-3), 1, CPU)
    outputs = predict(objective, model, rows)
    assert [tuple(np.flatnonzero(each > 0.5)) for each in outputs] == several
    rows = tokenise(tokenizer, texts, [1000.0, 2000.0, 3000.0, 2200.0] * 8, 64)
    number = Number("price", "price", 2050.0, 719.0)
    model = finetune(encoder, number, rows, recipe(epochs=25, peak_lr=3e-3), 1, CPU)
    before = np.stack(predict(number, model, rows))[:, 0]
    assert np.corrcoef(before, rows.labels)[0, 1] > 0.9 and abs(before - rows.labels).mean() < 300
    number.finish(model)
    after = np.stack(predict(Regression("price", "price"), model, rows))[:, 0]
    np.testing.assert_allclose(after, before, rtol=1e-4)


def test_the_saved_folder_s_tokenizer_is_the_same(encoder):
    from roberta_core.model.folder import read_config

    assert tokenizer_of(encoder, read_config(encoder)).get_vocab_size() == read_config(encoder).vocab_size
