"""The example that `protquant demo` folds."""

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

__all__ = ["example_fasta"]


def example_fasta() -> AbstractContextManager[Path]:
    """Return the example FASTA file: three chains that the demo model has memorized, and a complex of two."""
    return as_file(files("protquant.demo") / "example.fasta")
