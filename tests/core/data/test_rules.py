"""The rules of Gopher and C4: each one breaks on a text made for it, at its threshold, and on no good one."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.data.rules import C4, GOPHER, NAMES, broken_rule, drop_lines, expand, gram_shares

GOOD = """The river rises in the hills to the north of the town, and it runs for sixty miles before it meets the sea.
People have fished here since the first houses were built, and most of them still have a boat of their own.

In spring the water is high. Then the fields on both banks are wet for weeks, and nobody can work there with a cart.
Old stones beside the bridge show how far it came in other years! Would anyone believe them without having seen it?"""


def words(count: int, size: int = 5) -> str:
    """Words of their own, none twice."""
    return " ".join(f"{n:0{size}d}".translate(str.maketrans("0123456789", "abcdefghij")) for n in range(count))


BREAK = {
    "gopher_word_count": " ".join(GOOD.split()[:49]),
    "gopher_mean_word_length": "the be " + words(60, 12),
    "gopher_symbol_ratio": GOOD + " #" * 12,
    "gopher_alphabetic_words": GOOD + " 12" * 30,
    "gopher_stop_words": words(60),
    "gopher_bullet_lines": "\n".join(f"• {line} and the" for line in words(60).split()),
    "gopher_ellipsis_lines": GOOD.replace(".\n", "...\n").replace("sea.", "sea..."),
    "gopher_repeated_lines": "\n".join([*GOOD.split("\n"), *["ok"] * 4]),
    "gopher_repeated_line_chars": "\n".join([GOOD, GOOD.split("\n")[-1]]),
    "gopher_repeated_paragraphs": "\n\n".join([GOOD, "ok", "ok", "ok"]),
    "gopher_repeated_paragraph_chars": GOOD + "\n\n" + GOOD.split("\n\n")[1],
    "gopher_top_ngrams": GOOD + " certainly not" * 20,
    "gopher_repeated_ngrams": GOOD + " " + " ".join(GOOD.split()[20:50]),
    "c4_lorem_ipsum": GOOD + " Lorem ipsum dolor sit amet.",
    "c4_curly_bracket": GOOD + " if (x) { y }.",
    "c4_sentences": "One sentence of the text. And a second one",
}


@pytest.mark.parametrize("name", BREAK)
def test_a_text_made_for_it_breaks_a_rule(name):
    assert broken_rule(BREAK[name], frozenset({name})) == name
    assert broken_rule(GOOD, frozenset({name})) == ""
    assert broken_rule(BREAK[name], frozenset()) == ""


def test_good_text_breaks_none_and_every_rule_has_a_text():
    assert broken_rule(GOOD, expand(["gopher", "c4"])) == ""
    assert {name for name in NAMES if name not in ("gopher", "c4")} - set(BREAK) == {
        "c4_terminal_punctuation",
        "c4_line_words",
        "c4_javascript",
        "c4_policies",
        "c4_citations",
    }


def test_published_thresholds():
    count = frozenset({"gopher_word_count"})
    assert [bool(broken_rule(words(n, 6), count)) for n in (49, 50, 100_000, 100_001)] == [True, False, False, True]
    mean = frozenset({"gopher_mean_word_length"})
    assert [bool(broken_rule(" ".join(["a" * n] * 10), mean)) for n in (2, 3, 10, 11)] == [True, False, False, True]
    symbols = frozenset({"gopher_symbol_ratio"})
    assert [bool(broken_rule("word " * 9 + last, symbols)) for last in ("#", "##", "…", "...", "......")] == [
        False,
        True,
        False,
        False,
        True,
    ]
    bullets = frozenset({"gopher_bullet_lines"})
    assert [bool(broken_rule("\n".join(["- a"] * n + ["a"] * (20 - n)), bullets)) for n in (18, 19)] == [False, True]
    dots = frozenset({"gopher_ellipsis_lines"})
    assert [bool(broken_rule("\n".join(["a…"] * n + ["a"] * (10 - n)), dots)) for n in (3, 4)] == [False, True]
    letters = frozenset({"gopher_alphabetic_words"})
    assert [bool(broken_rule(" ".join(["a1"] * n + ["11"] * (10 - n)), letters)) for n in (8, 7)] == [False, True]
    stop = frozenset({"gopher_stop_words"})
    assert [bool(broken_rule(text, stop)) for text in ("The x the y", "the x To y")] == [True, False]


def naive_shares(tokens: list[str]) -> dict[int, float]:
    """The definition, word by word."""
    total, shares = max(sum(map(len, tokens)), 1), {}
    for n in range(2, 11):
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        if n <= 4:
            counts = Counter(grams)
            top = max(counts.values(), default=0)
            most = max((len("".join(gram)) for gram, count in counts.items() if count == top), default=0)
            shares[n] = most * top / total if top > 1 else 0.0
            continue
        covered: set[int] = set()
        seen = set()
        for place, gram in enumerate(grams):
            if gram in seen:
                covered.update(range(place, place + n))
            seen.add(gram)
        shares[n] = sum(len(tokens[place]) for place in covered) / total
    return shares


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=60))
def test_shares_of_ngrams_are_as_defined(tokens):
    assert gram_shares(tokens) == pytest.approx(naive_shares(tokens))


def test_word_rules_leave_scripts_without_spaces_alone():
    text = "白馬寺泰國風格佛殿是中國第一座寺院。這裡有很多人。他們都很高興。" * 20
    assert broken_rule(text, expand(["gopher", "c4"], ["gopher_repeated_line_chars"])) == ""


def test_lines_of_c4():
    text = "A good line of some words here.\nMenu\nPlease enable JavaScript to see this page.\n\nNo end mark on this line\n"
    text += "We use cookies on this page, as all do.\n“A fine line,” he said, “is one that ends.”[12]"
    left, used = drop_lines(text, expand(["c4"]))
    assert left == "A good line of some words here.\n\n“A fine line,” he said, “is one that ends.”"
    assert used == ["c4_citations", "c4_terminal_punctuation", "c4_javascript", "c4_policies"]
    left, used = drop_lines(text, frozenset({"c4_line_words"}))
    assert "Menu" not in left and "No end mark" in left and used == ["c4_line_words"]
    assert drop_lines(text, frozenset()) == (text, [])


def test_groups_and_what_is_switched_off():
    assert expand(["gopher"]) == frozenset(GOPHER) and expand(["c4"]) == frozenset(C4)
    assert expand(["gopher", "c4_curly_bracket"], ["gopher_stop_words"]) == (
        frozenset(GOPHER) - {"gopher_stop_words"} | {"c4_curly_bracket"}
    )
    assert expand(["gopher", "c4"], ["c4"]) == frozenset(GOPHER) and expand([]) == frozenset()
