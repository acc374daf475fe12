"""The example that `protquant demo` folds."""

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

__all__ = ["example_fasta"]


def example_fasta() -> AbstractContextManager[Path]:
    """The example FASTA file: three of the chains that the demo model knows, and a complex of two."""
    return as_file(files("protquant.demo") / "example.fasta")
