"""The embedded corpus: docstrings become prose, in an order that nothing but the installed versions decides."""

import textwrap

import pytest

from roberta_core.data.funnel import Funnel
from roberta_core.data.python_docs import Module, _module_texts, modules, prose, read_python_docs, topics
from roberta_core.errors import BadInput

NUMPYDOC = """Compute the mean of an array along
    the axis that is given.

    The mean is the sum of the elements :math:`x_i` divided by their number, see
    :func:`~numpy.sum` and ``axis`` for how it is taken.

    Parameters
    ----------
    a : array_like
        Array with the numbers whose mean is wanted by the caller.
    axis : int, optional

    Returns
    -------
    m : ndarray

    .. math:: x = \\frac{1}{n}

        more math here that is surely not prose at all

    .. note::
        The sum is kept in the type of the input, which may be inexact.

    >>> mean([1, 2])
    1.5

    ===== =====
    one   two
    ===== =====

    Use it as follows, with care for the type::

        this is code and it is not to be read as prose

    That is all there is to say about it.
    """


def test_a_docstring_becomes_prose():
    assert prose(NUMPYDOC).split("\n\n") == [
        "Compute the mean of an array along the axis that is given.",
        "The mean is the sum of the elements x_i divided by their number, see numpy.sum and axis for how it is taken.",
        "Array with the numbers whose mean is wanted by the caller.",
        "The sum is kept in the type of the input, which may be inexact.",
        "Use it as follows, with care for the type:",
        "That is all there is to say about it.",
    ]


def test_google_and_field_styles_leave_their_sentences():
    google = "Summary line of what it does here.\n\nArgs:\n    path (str): The path of the file that is read.\n"
    google += "    mode (str, optional): How it is\n        opened and closed again by us.\n    flag: One.\n"
    assert prose(google).split("\n\n")[0] == "Summary line of what it does here."
    assert prose(google).split("\n\n")[1:] == [
        "The path of the file that is read.",
        "How it is opened and closed again by us. flag: One.",
    ]
    fields = ":param path: the file that is read from the disk\n:raises OSError: when the file cannot be read at all\n"
    assert prose(fields) == "the file that is read from the disk\n\nwhen the file cannot be read at all"


@pytest.mark.parametrize(
    "text",
    ["", "x.__init__(...) initializes x", ">>> only(code)\n1", "a lone \ud800 surrogate in one sentence of words"],
)
def test_odd_docstrings(text):
    assert isinstance(prose(text).encode("utf8"), bytes)  # what cannot be written is out


def test_long_docstrings_stand_alone_and_short_ones_are_joined(tmp_path):
    sentence = "This sentence explains what the function is good for. "
    path = tmp_path / "m.py"
    path.write_text(
        textwrap.dedent(
            f'''
            """The module's own docstring tells what it is for."""
            class Big:
                """{sentence * 12}"""
                def small(self):
                    """The method does a small thing for its class."""
                def again(self):
                    """The method does a small thing for its class."""
            if True:
                def hidden():
                    """A function below a condition is found as well."""
            '''
        )
    )
    funnel = Funnel()
    documents = list(_module_texts(Module(path, "m.py", "p"), funnel))
    assert documents == [
        ((sentence * 12).strip(), {"module": "m.py", "object": "Big", "package": "p"}),
        (
            "The module's own docstring tells what it is for.\n\nThe method does a small thing for its class.\n\n"
            "A function below a condition is found as well.",
            {"module": "m.py", "package": "p"},
        ),
    ]
    path.write_text('"""never closed')
    assert list(_module_texts(Module(path, "m.py", "p"), funnel)) == [] and funnel.dropped == {"unparsable_module": 1}


def test_modules_come_in_order_without_tests():
    found = modules(["networkx"], "key")
    for package in ("python", "networkx"):
        names = [module.name for module in found if module.package == package]
        assert len(names) > 100 and names == sorted(names)
        assert not any("/tests/" in name or name.startswith("test/") or "site-packages" in name for name in names)


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(BadInput, match=r"corpus.sources.x.packages names no-such-thing, which is not installed"):
        modules(["no-such-thing"], "corpus.sources.x")


def test_the_manual_is_prose():
    found = {meta["object"]: text for text, meta in topics()}
    assert len(found) > 50
    assert "conditional execution" in found["if"]


def test_the_corpus_is_prose_and_does_not_depend_on_the_workers(monkeypatch):
    from roberta_core.data import python_docs

    some = [module for module in modules([], "key") if module.name.startswith(("asyncio/", "email/", "a", "h"))]
    monkeypatch.setattr(python_docs, "modules", lambda packages, key: some)
    monkeypatch.setattr(python_docs, "CHUNK_BYTES", 300_000)
    one, two = Funnel(), Funnel()
    documents = list(read_python_docs([], "python-docs", 1, one, "key"))
    assert documents == list(read_python_docs([], "python-docs", 2, two, "key")) and one == two
    assert one.kept == len(documents) > 100
    assert sum(len(document.text) > 200 for document in documents) > 0.7 * len(documents)
    words = " ".join(document.text for document in documents).split()
    assert sum(word.strip(".,;:()'\"").isalpha() for word in words) > 0.8 * len(words)
