"""Fill-mask examples for the report: what the encoder puts in a gap, in held-out sentences and in a few fixed ones.

The held-out sentences and the words hidden in them are chosen by hash, not by hand and not by how well the model does,
so that the report shows a fair sample. A hidden word is always one token, so that one `<mask>` can stand for it.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

PROMPTS = (
    "This function returns a <mask> of strings.",
    "If the file does not <mask>, an error is raised.",
    "The city lies on the banks of the <mask>.",
    "She was born in <mask> and studied at the university.",
)
MASK = "<mask>"
DOCUMENTS_READ = 400
DEEPEST_RANK = 1000
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
PROSE = re.compile(r"[A-Z][A-Za-z ,;:'\-()]+\.")
WORD = re.compile(r"(?<= )[a-z]{4,}(?=[ ,.;])")


@dataclass(frozen=True)
class Example:
    """A sentence with one gap, what the text has there (empty: nobody knows), and the model's five best guesses.

    `rank` is the place of the text's own word among all tokens (1 is the first); 0 where it is beyond `DEEPEST_RANK`,
    or there is none.
    """

    before: str
    after: str
    word: str
    guesses: list[tuple[str, float]]
    rank: int


def held_out_sentences(folder: Path, count: int) -> list[str]:
    """`count` sentences of plain prose, 50 to 150 characters, from the first documents of the shards in `folder`.

    At most one of a document; in the order of their hashes.
    """
    from roberta_core.data.documents import read_shards

    found, seen = [], 0
    for batch in read_shards(folder, ["text"]):
        for text in batch.column("text").to_pylist():
            seen += 1
            prose = [
                each
                for each in SENTENCE.split(" ".join(text.split()))
                if 50 <= len(each) <= 150 and PROSE.fullmatch(each)
            ]
            if prose:
                found.append(min(prose, key=_draw))
            if seen >= DOCUMENTS_READ:
                break
        if seen >= DOCUMENTS_READ:
            break
    return sorted(set(found), key=_draw)[:count]


def _shown(token: str) -> str:
    """A token as a reader can take it: without its space; a bare space, or bytes that are no character, in words."""
    token = token.strip()
    if not token:
        return "(space)"
    return token if token.isprintable() and "\ufffd" not in token else "(bytes)"


def _draw(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hide_word(sentence: str, is_one_token) -> tuple[str, str, str] | None:
    """`(before, word, after)` with a word of the sentence chosen by hash; None where no word is one token.

    The second half of the sentence is preferred: a gap near the start has little to go by.
    """
    words = [match for match in WORD.finditer(sentence) if is_one_token(" " + match.group())]
    words = [match for match in words if match.start() > len(sentence) * 0.3] or words
    if not words:
        return None
    chosen = min(words, key=lambda match: _draw(sentence + match.group()))
    return sentence[: chosen.start()], chosen.group(), sentence[chosen.end() :]


def fill_mask_examples(encoder: Path, validation: Path, held_out: int = 4) -> list[Example]:
    """Runs the encoder of the folder `encoder` on `held_out` sentences of the shards in `validation`, and on `PROMPTS`.

    Raises:
        UserError: the encoder's folder cannot be read.
    """
    from roberta_core.inference import EncoderModel

    model = EncoderModel(encoder)
    deep = min(DEEPEST_RANK, model.tokenizer.get_vocab_size())

    def one_token(text: str) -> bool:
        return len(model.tokenizer.encode(text, add_special_tokens=False).ids) == 1

    def example(before: str, word: str, after: str) -> Example:
        best = model.fill(f"{before}{MASK}{after}", top=deep)[0]
        rank = next((i for i, (token, _) in enumerate(best, 1) if token == f" {word}"), 0) if word else 0
        return Example(before, after, word, [(_shown(token), share) for token, share in best[:5]], rank)

    made = []
    if validation.exists():
        for sentence in held_out_sentences(validation, 3 * held_out):
            parts = hide_word(sentence, one_token)
            if parts and len(made) < held_out:
                made.append(example(*parts))
    for prompt in PROMPTS:
        before, after = prompt.split(MASK)
        made.append(example(before, "", after))
    return made
