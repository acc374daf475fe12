"""Write tables of results as CSV or Parquet."""

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
    """Write rows as CSV or Parquet, depending on the suffix of the file.

    Parameters
    ----------
    rows : sequence of mapping
        The rows; where a row lacks a key, the table has a missing value.
    path : str or PathLike
        A file that ends in `.csv`, `.csv.gz` (compressed) or `.parquet`.
    columns : sequence of str, optional
        The columns and their order. By default, the keys in order of first appearance.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ProtquantError
        If the suffix is another, Parquet support is not installed, a column cannot be stored, or the file cannot
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
        except (ValueError, TypeError) as error:  # pyarrow's errors are of these two classes
            raise ProtquantError(
                f"{target}: a column cannot be stored as Parquet ({error}). Name a file that ends in .csv."
            ) from error
    elif name.endswith((".csv", ".csv.gz")):
        # mtime 0, so that the same rows give the same bytes.
        compression: Any = {"method": "gzip", "mtime": 0} if name.endswith(".gz") else None
        # Before Python 3.13, csv does not quote a carriage return, which readers take for the end of the row.
        has_return = any(isinstance(value, str) and "\r" in value for row in rows for value in row.values())
        quoting: Any = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
        frame.to_csv(content, index=False, lineterminator="\n", compression=compression, quoting=quoting)
    else:
        raise ProtquantError(
            f"{target}: a table is written as CSV or Parquet. Name a file that ends in .csv, .csv.gz or .parquet."
        )
    return atomic_write(target, content.getvalue())
