"""User errors: one line, one exit code, also when they come from another process."""

import pickle

import pytest

from roberta_core.errors import BadInput, BadParams, Preempted, TryAgain


@pytest.mark.parametrize("kind, code", [(BadInput, 1), (BadParams, 1), (TryAgain, 75), (Preempted, 75)])
def test_an_error_is_the_same_after_a_process_boundary(kind, code):
    error = pickle.loads(pickle.dumps(kind("It is broken. ", "Mend it.")))
    assert type(error) is kind and error.exit_code == code
    assert (str(error), error.what, error.mend) == ("It is broken. Mend it.", "It is broken.", "Mend it.")
