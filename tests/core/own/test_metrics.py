"""Metrics against values computed by hand, and against what others' code says."""

import random

import pytest

from roberta_core.own.entities import Span, spans_of, words_of
from roberta_core.own.metrics import entity_counts, label_counts, measure, score_multi_label, score_numbers, score_tags
from roberta_core.own.squad_metrics import best_threshold, is_chinese, score_answer
from roberta_core.own.squad_metrics import words_of as answer_words


def test_classes_by_hand():
    # class 0: precision 2/3, recall 1, F1 0.8; class 1: 1, 1/2, 2/3; class 2: 1, 1, 1
    found, _ = measure(("accuracy", "f1_macro", "mcc"), [0, 0, 1, 1, 2], [0, 0, 1, 0, 2])
    assert found["accuracy"] == 0.8 and found["f1_macro"] == pytest.approx((0.8 + 2 / 3 + 1) / 3)
    # (c s - sum p t) / sqrt((s² - sum p²) (s² - sum t²)), with c 4, s 5, t 2 2 1, p 3 1 1
    assert found["mcc"] == pytest.approx((20 - 9) / ((25 - 11) * (25 - 9)) ** 0.5)


def test_numbers_by_hand():
    found, _ = score_numbers(("pearson", "spearman"), [1, 2, 3], [2, 4, 9])
    # deviations -1 0 1 and -3 -1 4: 7 / sqrt(2 · 26)
    assert found["pearson"] == pytest.approx(7 / 52**0.5) and found["spearman"] == pytest.approx(1)
    assert found["rmse"] == pytest.approx((41 / 3) ** 0.5)
    found, notes = score_numbers(("pearson",), [1, 2, 3], [2, 2, 2])
    assert found["pearson"] == 0.0 and "undefined" in notes[0]


def test_several_labels_by_hand():
    labels, guesses = [(0, 1), (1,), (), (2,)], [(0,), (1, 2), (), ()]
    found = score_multi_label(("f1_micro", "f1_macro", "exact_match"), labels, guesses, 3)
    # right 2 (0 and 1), predicted 3, there 4: 2 · 2 / 7; by label: 1, 2 · 1 / 3, 0
    assert found["f1_micro"] == pytest.approx(4 / 7) and found["f1_macro"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["exact_match"] == 0.25
    assert [label_counts(*each) for each in zip(labels, guesses)] == [(1, 1, 2), (1, 2, 1), (0, 0, 0), (0, 0, 1)]
    # a label that training does not know is missed: one more there
    unseen = score_multi_label(("f1_micro",), [(0, 1), (1,), (), (2, 3)], guesses, 3)
    assert unseen["f1_micro"] == pytest.approx(4 / 8)


def test_entities_by_hand():
    tags = [["B-per", "I-per", "O", "B-loc"], ["O", "B-org", "O"]]
    guesses = [["B-per", "I-per", "O", "O"], ["O", "B-per", "B-org"]]
    found = score_tags(("f1", "accuracy"), tags, guesses)
    # right 1, predicted 3, there 3
    assert found["precision"] == found["recall"] == found["f1"] == pytest.approx(1 / 3)
    assert found["accuracy"] == pytest.approx(4 / 7)
    counts = [entity_counts(*each) for each in zip(tags, guesses)]
    assert counts == [(1, 1, 2), (0, 2, 1)]
    assert "f1" not in score_tags(("accuracy",), [["NOUN", "VERB"]], [["NOUN", "NOUN"]])


def test_spans_are_seqeval_s():
    entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    draw = random.Random(5)
    kinds = ["O", "B-a", "I-a", "B-b", "I-b", "E-a", "S-b"]
    for _ in range(3000):
        tags = [draw.choice(kinds) for _ in range(draw.randint(1, 8))]
        assert spans_of(tags) == [Span(kind, first, last + 1) for kind, first, last in entities(tags)], tags
    assert spans_of([]) == []


def test_raw_text_into_words():
    def words(text):
        return [text[start:end] for start, end in words_of(text)]

    assert words("I'm in New-York, O’Neil (@bob) said: #go!") == [
        "I'm", "in", "New-York", ",", "O’Neil", "(", "@bob", ")", "said", ":", "#go", "!",
    ]  # fmt: skip
    assert words("我在北京 met Ann") == ["我", "在", "北", "京", "met", "Ann"]
    assert words("café naïve e\u0301te\u0301") == ["café", "naïve", "e\u0301te\u0301"]
    assert words("😀 ok") == ["😀", "ok"] and words("  \n") == []
    assert words("ที่นี่") == ["ที่", "นี่"]
    # vowel signs, points, a joiner without width, and an emoji of several characters
    for text in ("हिन्दी भाषा", "বাংলা", "தமிழ்", "مُحَمَّد می\u200cخواهم", "בְּרֵאשִׁית", "é\u0301-e\u0301"):
        assert words(text) == text.split()
    assert words("❤\ufe0flove 👩\u200d👧!") == ["❤\ufe0f", "love", "👩\u200d", "👧", "!"]


def test_answers_by_hand():
    assert score_answer(["The Cat"], "cat.", False) == (1.0, 1.0)
    # black cat sat / cat sat down: 2 shared of 3 and 3
    assert score_answer(["the black cat sat"], "a cat sat down", False) == (0.0, pytest.approx(2 / 3))
    assert score_answer(["x", "in 1990"], "1990", False) == (0.0, pytest.approx(2 / 3))
    assert score_answer([], "", False) == (1.0, 1.0) and score_answer([], "x", False) == (0.0, 0.0)
    assert score_answer(["x"], "", False) == (0.0, 0.0) and score_answer(["the"], "", False) == (1.0, 1.0)
    # repeated words count as often as they stand there
    assert score_answer(["b b c"], "b", False)[1] == pytest.approx(2 * 1 / 4)


def test_chinese_answers_by_character():
    assert is_chinese(["北京大学", "308"]) and not is_chinese(["Peking 大学 university"])
    assert answer_words("《北京》大学,the NFL 50", True) == ["北", "京", "大", "学", "the", "nfl", "50"]
    # 4 characters of 4 and 6
    assert score_answer(["北京大学"], "在北京大学里", True) == (0.0, pytest.approx(8 / 10))
    assert score_answer(["北京大学"], "在北京大学里", False) == (0.0, 0.0)


def test_the_threshold_of_no_answer_by_hand():
    scores, answered, null = [1.0, 0.5, 0.0, 0.0], [True, True, False, False], [-3.0, 1.0, 0.5, 2.0]
    # sums when the first n by null score are answered: 2, 3, 2, 2.5, 1.5
    assert best_threshold(scores, answered, null) == (-3.0, 0.75)
    assert best_threshold([0.0, 0.0], [False, False], [1.0, 2.0]) == (0.0, 1.0)
    assert best_threshold([1.0, 1.0], [True, True], [1.0, 2.0]) == (2.0, 1.0)
    # two of one value fall on one side
    assert best_threshold([1.0, 0.0], [True, False], [1.0, 1.0]) == (0.0, 0.5)


def test_the_threshold_is_the_best_of_all():
    draw = random.Random(3)
    for _ in range(200):
        size = draw.randint(1, 9)
        answered = [draw.random() < 0.6 for _ in range(size)]
        scores = [draw.choice((0.0, 0.4, 1.0)) if each else 0.0 for each in answered]
        null = [float(draw.randint(-2, 2)) for _ in range(size)]
        threshold, best = best_threshold(scores, answered, null)

        def mean(at, answered=answered, scores=scores, null=null):
            got = [
                score if far <= at and has else float(far > at and not has)
                for score, has, far in zip(scores, answered, null)
            ]
            return sum(got) / len(got)

        assert mean(threshold) == pytest.approx(best) == pytest.approx(max(mean(at) for at in (-9, *null)))
