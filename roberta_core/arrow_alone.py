"""pyarrow without pandas, for processes that have no use for it.

With the first array that it makes, pyarrow asks whether it was given something of pandas, and imports pandas to know: 0.3 s
in every process of every stage, where pandas is installed (mlflow and datasets bring it). The price of keeping it out: in
this process nothing else can import it either.
"""

import sys


class _Refused:
    """A finder that has no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this process (roberta_core.arrow_alone)", name=name)


def keep_pandas_out() -> None:
    """Makes `import pandas` fail in this process, unless it was imported already. For a process of one's own only."""
    if "pandas" not in sys.modules and _Refused not in sys.meta_path:
        sys.meta_path.insert(0, _Refused)
