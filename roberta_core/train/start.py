"""What a fresh model starts with, beside its random draw, as the recipe says."""

from roberta_core.data.packed import PackedRows
from roberta_core.model import RobertaForMaskedLM
from roberta_core.model.neighbours import start_with_neighbours
from roberta_core.train.cooccurrence import start_with_word_vectors
from roberta_core.train.recipes import Recipe


def start(model: RobertaForMaskedLM, rows: PackedRows, recipe: Recipe, seed: int) -> None:
    """Changes a freshly drawn model in place. A pure function of rows, recipe and seed.

    Args:
        model: as its constructor draws it.
        rows: the training split; word vectors are counted from it.
        recipe: `word_vectors` and `neighbours` say what is wanted.
        seed: of the run.
    """
    if recipe.word_vectors:
        start_with_word_vectors(model, rows, seed)
    if recipe.neighbours:  # afterwards: it takes the words out of the positions' subspace
        start_with_neighbours(model, seed)
