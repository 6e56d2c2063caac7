"""An English corpus that every Python installation carries: the manual's topics and the docstrings of its libraries.

Why: a first run needs some tens of megabytes of prose, offline, with nobody's terms to accept. `pydoc_data.topics` is
part of the language manual; the docstrings of the standard library and of this project's dependencies add explanation,
tutorials and reference. Source files are parsed with `ast` and never imported, in the order of their names, so the
same installed versions give the same bytes.

A docstring is reference text, not prose: doctests, signatures, tables and markup are taken out and wrapped lines are
joined, and what is left counts as prose where it consists of words. A long docstring is a document by itself; short
ones of the same module are joined into one. Price: parsing 170 MB of source takes some 10 s on two cores.
"""

import ast
import gc
import importlib.metadata
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from roberta_core.data.documents import Document
from roberta_core.data.funnel import Funnel
from roberta_core.data.sources import to_document
from roberta_core.errors import BadInput
from roberta_core.executor import map_shards
from roberta_core.progress import Progress

OWN_DOCUMENT_CHARS = 500
"""A docstring with this much prose is a document by itself; shorter ones are joined, in the order of the file."""

MAX_JOINED_CHARS = 4000
"""A document of joined docstrings ends at the first docstring past this many characters (one packed row or two)."""

CHUNK_BYTES = 2_000_000
"""Source code that one unit of work parses."""

SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "_vendor",
    "vendored",
    "site-packages",
    "idle_test",
    "pydoc_data",
    "__pycache__",
}


@dataclass(frozen=True)
class Module:
    """A source file: where it lies, and the name it is known by (`json/decoder.py`, `numpy/linalg/_linalg.py`)."""

    path: Path
    name: str
    package: str


# -- reStructuredText, numpydoc and Google style into prose ------------------------------------------------------------

_MARKS = re.compile(r"[`*\[|\\]")
_INLINE = [
    (re.compile(r":[a-zA-Z][\w:+.-]*:`[~.]?(?:_\w+\.)?([^`<]+?)(?:\s*<[^`]*>)?`"), r"\1"),
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),
    (re.compile(r"`([^`\n]+)`_{0,2}"), r"\1"),
    (re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"(?<![\w*])\*\*(?=\S)([^*\n]+)(?<=\S)\*\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"\s*\[#?[\w-]*\]_"), ""),
    (re.compile(r"\|([A-Za-z][\w .]*)\|"), r"\1"),
    (re.compile(r"\\([ _*`|])"), r"\1"),
]
_UNDERLINE = re.compile(r"^([=\-~^`'\"#*+.:])\1{2,}$")
_TABLE = re.compile(r"^[+|]|^=+(\s+=+)+$|^-+(\s+-+)+$")
_DIRECTIVE = re.compile(r"^\.\.( |$)")
_PROSE_DIRECTIVE = re.compile(
    r"^\.\. (?:note|warning|tip|seealso|important|caution|versionadded|versionchanged|deprecated|admonition)::\s*(.*)$"
)
_FIELD = re.compile(
    r"^:(?:param|parameter|arg|argument|key|keyword|raises?|returns?|return|yields?|ivar|var|cvar|type|rtype)\b[^:]*:\s*"
)
_ENTRY = re.compile(r"^[`*]*[\w.]+`*(?:, ?[`*]*[\w.]+`*)*\s*(?P<type>\([^)]*\))?\s*:\s+(?=\S)")
_NUMPYDOC = re.compile(r"^\*{0,2}\w[\w.*`, ]*\s:(?:\s|$)")
_BULLET = re.compile(r"^(?:[-*+•]|\(?\d{1,2}[.)])\s+")
_GOOGLE = re.compile(
    r"^(?:Args|Arguments|Parameters?|Keyword [Aa]rgs|Returns?|Raises|Yields|Attributes|Examples?|Notes?|See Also|References)::?$"
)
_WORD = re.compile(r"[A-Za-z][a-z'’-]*[.,;:!?)]*$")


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph consists of words: six or more, and three in four of them plain (letters and punctuation)."""
    words = paragraph.split()
    if len(words) < 6:
        return False
    plain = sum(1 for word in words if _WORD.match(word.strip("(\"'")))
    return plain >= 0.75 * len(words)


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Joins wrapped lines into paragraphs, leaving out code, doctests, tables, directives and headings."""
    held: list[str] = []
    skip_deeper: int | None = None
    doctest = False
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if skip_deeper is not None:
            if not text or indent > skip_deeper:
                continue
            skip_deeper = None
        if not text:
            doctest = False
        elif text.startswith(">>>") or doctest:
            doctest, text = True, ""
        elif _DIRECTIVE.match(text):
            prose = _PROSE_DIRECTIVE.match(text)
            if prose:
                text = prose[1] if " " in prose[1] else ""
            else:
                skip_deeper, text = indent, ""
        elif _UNDERLINE.match(text):
            held = held[:-1]
            text = ""
        elif _TABLE.match(text) or _GOOGLE.match(text) or _NUMPYDOC.match(text):
            text = ""
        elif text.startswith("```"):
            while index < len(lines) and not lines[index].strip().startswith("```"):
                index += 1
            index += 1
            text = ""
        entry = _ENTRY.match(text) if indent else None
        starts = bool(_FIELD.match(text) or _BULLET.match(text) or (entry and entry["type"]))
        if held and (not text or starts):
            yield " ".join(held)
            held = []
        if text:
            text = _FIELD.sub("", _BULLET.sub("", text))
            if entry and not held:
                text = _ENTRY.sub("", text)
            literal = text.endswith("::")  # an indented block of code follows
            text = text[:-1] if literal and text != "::" else text.removesuffix("::")
            if text:
                held.append(text)
            if literal:
                skip_deeper = indent
                if held:
                    yield " ".join(held)
                    held = []
    if held:
        yield " ".join(held)


def prose(docstring: str) -> str:
    """The prose of one docstring: paragraphs joined by blank lines; "" where it has none."""
    lines = inspect.cleandoc(docstring.expandtabs(4)).split("\n")
    kept = []
    for paragraph in _paragraphs(lines):
        if _MARKS.search(paragraph):
            for pattern, replacement in _INLINE:
                paragraph = pattern.sub(replacement, paragraph)
        if _is_prose(paragraph):
            kept.append(paragraph)
    # A docstring may hold an escaped lone surrogate, which no UTF-8 file can.
    return "\n\n".join(kept).encode("utf8", "ignore").decode("utf8")


# -- source files into documents ---------------------------------------------------------------------------------------


def _docstrings(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Qualified names and docstrings of a module and all classes and functions in it, in the order of the file."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        name, node = waiting.pop()
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = body[0] if body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield name, first.value.value
        inner = [child for child in body if hasattr(child, "body")]
        waiting += [
            (f"{name}.{child.name}".lstrip(".") if hasattr(child, "name") else name, child)
            for child in reversed(inner)
        ]


def _module_texts(module: Module, funnel: Funnel) -> Iterator[tuple[str, dict]]:
    """The documents of one source file."""
    raw = module.path.read_bytes()
    if b'"""' not in raw and b"'''" not in raw:
        return
    try:
        tree = ast.parse(raw)
    except (SyntaxError, ValueError, RecursionError) as error:
        funnel.drop("unparsable_module", f"{module.name}: {error}")
        return
    joined: list[str] = []
    for name, docstring in _docstrings(tree):
        text = prose(docstring)
        if len(text) >= OWN_DOCUMENT_CHARS:
            yield text, {"module": module.name, "object": name, "package": module.package}
        elif text and text not in joined:  # an overriding method often repeats its parent's docstring
            joined.append(text)
            if sum(map(len, joined)) >= MAX_JOINED_CHARS:
                yield "\n\n".join(joined), {"module": module.name, "package": module.package}
                joined = []
    if joined:
        yield "\n\n".join(joined), {"module": module.name, "package": module.package}


def _chunk_documents(chunk: list[Module], source: str) -> tuple[list[Document], int, dict]:
    """The documents of a chunk of source files (about 1 MB of text), bytes of source read, and the funnel."""
    funnel = Funnel()
    documents = []
    collecting = gc.isenabled()
    gc.disable()  # a syntax tree is thousands of small objects that all die together
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's invalid escapes are not this user's matter
            for module in chunk:
                for text, meta in _module_texts(module, funnel):
                    funnel.keep(text)
                    documents.append(to_document(text, source, meta))
    finally:
        if collecting:
            gc.enable()
    return documents, len(chunk), funnel.to_dict()


def _skipped(relative: Path) -> bool:
    return bool(SKIPPED_FOLDERS.intersection(relative.parts)) or relative.name.startswith(("test_", "conftest"))


def modules(packages: list[str], key: str) -> list[Module]:
    """Source files of the standard library and of the named installed distributions, in the order of their names.

    Raises:
        BadInput: a distribution is not installed; `key` names the params key.
    """
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    found = [
        Module(path, path.relative_to(stdlib).as_posix(), "python")
        for path in sorted(stdlib.rglob("*.py"))
        if not _skipped(path.relative_to(stdlib))
    ]
    for package in packages:
        try:
            files = importlib.metadata.distribution(package).files or []
        except importlib.metadata.PackageNotFoundError:
            raise BadInput(
                f"{key}.packages names {package}, which is not installed.",
                f"Install it, or take it out of {key}.packages.",
            ) from None
        names = sorted(
            {
                Path(file)
                for file in files
                if file.suffix == ".py" and not _skipped(Path(file)) and ".." not in file.parts
            }
        )
        located = [(name, Path(importlib.metadata.distribution(package).locate_file(name))) for name in names]
        found += [Module(path, name.as_posix(), package) for name, path in located if path.is_file()]
    return found


def topics() -> Iterator[tuple[str, dict]]:
    """The language manual's topics that `help()` shows, from `pydoc_data/topics.py`, by name."""
    path = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    if not path.is_file():
        return
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield prose(text), {"module": "pydoc_data/topics.py", "object": name, "package": "python"}


def read_python_docs(packages: list[str], source: str, workers: int, funnel: Funnel, key: str) -> Iterator[Document]:
    """The whole corpus: topics first, then source files by package (standard library first), in the order of names.

    Raises:
        BadInput: as `modules`.
    """
    chunks: list[list[Module]] = []
    room = 0
    for module in modules(packages, key):
        if room <= 0:
            chunks.append([])
            room = CHUNK_BYTES
        chunks[-1].append(module)
        room -= module.path.stat().st_size
    for text, meta in topics():
        if text:
            funnel.keep(text)
            yield to_document(text, source, meta)
    progress = Progress("reading python-docs", sum(map(len, chunks)), "modules")
    for documents, count, counted in map_shards(partial(_chunk_documents, source=source), chunks, workers, here=True):
        funnel.merge(Funnel.from_dict(counted))
        progress.advance(count, f"{funnel.chars / 1e6:.1f} MB of text")
        yield from documents
    progress.finish(f"{funnel.kept} documents, {funnel.chars / 1e6:.1f} MB of text")
