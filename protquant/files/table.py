"""Writing a table of results as CSV or Parquet."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from protquant.errors import ProtquantError
from protquant.files.outputs import atomic_write

__all__ = ["write_table"]


def write_table(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], *, columns: Sequence[str] | None = None
) -> Path:
    """Write rows as CSV or Parquet, by the suffix of the file.

    Parameters
    ----------
    rows : sequence of mapping
        The rows; a key that a row lacks is a missing value there.
    path : str or PathLike
        A file that ends in `.csv` or `.parquet`; `.csv.gz` is compressed.
    columns : sequence of str, optional
        The columns and their order. By default, the keys in order of first appearance.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ProtquantError
        If the suffix is none of these, Parquet support is not installed, a column cannot be stored, or the file cannot
        be written.
    """
    target = Path(path)
    keys = list(dict.fromkeys(key for row in rows for key in row)) if columns is None else list(columns)
    frame = pd.DataFrame([dict(row) for row in rows], columns=keys)
    content = io.BytesIO()
    name = target.name.lower()
    if name.endswith(".parquet"):
        try:
            frame.to_parquet(content, engine="pyarrow", index=False)
        except ImportError as error:
            raise ProtquantError(
                f"{target}: Parquet needs the package pyarrow. "
                "Install it with: pip install 'protquant[parquet]', or name a file that ends in .csv."
            ) from error
        except (ValueError, TypeError) as error:  # pyarrow's errors are both
            raise ProtquantError(
                f"{target}: a column cannot be stored as Parquet ({error}). Name a file that ends in .csv."
            ) from error
    elif name.endswith((".csv", ".csv.gz")):
        # mtime 0: the same rows give the same bytes.
        compression: Any = {"method": "gzip", "mtime": 0} if name.endswith(".gz") else None
        # The csv module of Python before 3.13 leaves a carriage return bare, which readers take for the end of the row.
        bare = any(isinstance(value, str) and "\r" in value for row in rows for value in row.values())
        quoting: Any = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
        frame.to_csv(content, index=False, lineterminator="\n", compression=compression, quoting=quoting)
    else:
        raise ProtquantError(
            f"{target}: a table is written as CSV or Parquet. Name a file that ends in .csv, .csv.gz or .parquet."
        )
    return atomic_write(target, content.getvalue())
