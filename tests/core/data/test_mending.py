"""Mending, line removal, masking and languages: what is altered, and what must stay as it is."""

from pathlib import Path

import pytest

from roberta_core.data.mending import boilerplate, language, languages, mask, mend, without_lines, without_repeats

ALL = ("email", "phone", "ip")


def test_mending():
    assert mend("schÃ¶n &amp; gut, naÃ¯ve cafÃ©") == "schön & gut, naïve café"
    for good in ("schön", "“curly” quotes – stay", "全角，。ＡＢＣ", "2 < 3 and a > b", "", "x\r\ny"):
        assert mend(good) == good


def test_boilerplate_is_what_many_documents_have():
    menu, footer = "Home |  About", "© 2026 All rights reserved"
    texts = [f"{menu}\nstory {n}\n{footer}\n{footer}" for n in range(10)] + ["Rare\nRare\nRare", "x" * 400]
    found = boilerplate(texts, 10)
    assert found == {"Home | About", footer}
    assert boilerplate(texts, 11) == frozenset()
    assert without_lines(texts[3] + "\n\nend", found) == "story 3\n\nend"


def test_repeated_lines_go_and_blank_ones_stay():
    assert without_repeats("a\n\nb\na\n\nb\nc") == "a\n\nb\n\nc"


@pytest.mark.parametrize(
    "text, masked",
    [
        ("Write to jane.doe+x@mail.example.co.uk.", "Write to [email]."),
        ("<a@b.de>, c_d@e-f.org", "<[email]>, [email]"),
        ("Call +49 30 901820 or +1 (212) 555-0123.", "Call [phone] or [phone]."),
        ("Call (212) 555-0123, 212-555-0123 or 415.555.2671", "Call [phone], [phone] or [phone]"),
        ("From 192.168.0.1, 8.8.8.8:53 and 10.0.0.255.", "From [ip], [ip]:53 and [ip]."),
        ("Over 2001:db8::8a2e:370:7334 or fe80::1 today", "Over [ip] or [ip] today"),
    ],
)
def test_personal_data_is_masked(text, masked):
    assert mask(text, ALL)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "at 12:30:45 on 2026-11-20, 20.11.2026 and 11/20/2026",
        "version 3.11.2 or 1.2.3.4.5, pi 3.14159265358979, 1,000,000.00 dollars",
        "ISBN 978-3-16-148410-0, 1914-1918, 10 000 000 people, 555-0123",
        "std::vector a::b x@y @name user@host 300.1.1.1 Genesis 1:2:3",
        "$4 + 5 = 9, 0049 is four digits, +5 % and + 12 34",
    ],
)
def test_other_figures_stay(text):
    assert mask(text, ALL) == (text, [])


def test_only_what_is_asked_for_is_masked_and_named():
    text = "a@b.de from 1.2.3.4"
    assert mask(text, ("ip",)) == ("a@b.de from [ip]", ["masked_ip"])
    assert mask(text, ALL)[1] == ["masked_email", "masked_ip"]
    assert mask(text, ()) == (text, [])


def test_masking_takes_time_that_grows_with_the_text():
    """No pattern tries a long run again from each of its places: these would take hours."""
    for run in (
        "a" * 200_000,
        "1" * 200_000,
        "a." * 100_000,
        "1 " * 100_000,
        "a@" * 100_000,
        ":" * 200_000,
        "+1" * 100_000,
    ):
        assert len(mask(run, ALL)[0]) <= len(run)


@pytest.mark.parametrize(
    "text, code",
    [
        ("The river rises in the hills to the north of the town.", "en"),
        ("Der Fluss entspringt in den Hügeln nördlich der Stadt.", "de"),
        ("La rivière prend sa source dans les collines au nord de la ville.", "fr"),
        ("白馬寺泰國風格佛殿是中國第一座寺院，這裡有很多人。", "zh"),
        ("Река берёт начало на холмах к северу от города.", "ru"),
    ],
)
def test_languages(text, code):
    found, probability = language(text)
    assert found == code and 0.5 < probability <= 1
    assert code in languages()


WIKI = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.skipif(not WIKI.is_dir(), reason="the real Wikipedia text is not here")
def test_languages_of_real_articles():
    for folder, code in (("wiki_en", "en"), ("wiki_zh", "zh")):
        raw = (WIKI / folder / "text" / "AA" / "wiki_00").read_text(encoding="utf8")[:800_000]
        bodies = [part.partition("\n")[2] for part in raw.split("<doc ") if len(part) > 1500][:150]
        right = sum(language(body)[0] == code for body in bodies)
        assert len(bodies) > 50 and right >= 0.97 * len(bodies)
