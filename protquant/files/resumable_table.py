"""A table of results, each row written as soon as it is known, by which the next run knows what is done."""

from pathlib import Path
from typing import Any

import pandas as pd

from protquant.errors import ProtquantError
from protquant.files import prepare_folder, write_table

__all__ = ["ResumableTable"]

_KEY = "key"


class ResumableTable:
    """Rows by key: a column of the file, the fingerprint of all that the row depends on.

    Parameters
    ----------
    path : Path or None
        A file that ends in `.csv`, which may exist; None keeps rows in memory alone.
    done : tuple of str
        Values of the column `status` that need no other attempt.

    Raises
    ------
    ProtquantError
        If the file has another name, cannot be read or written, or is no such table.
    """

    def __init__(self, path: Path | None, done: tuple[str, ...]) -> None:
        self.path, self.done = path, done
        self._rows: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        if path.suffix.lower() != ".csv":
            raise ProtquantError(f"{path}: a table that can be resumed ends in .csv")
        prepare_folder(path.parent)
        if path.exists():
            self._rows = _read(path)

    def finished(self, key: str) -> dict[str, Any] | None:
        """The row of that key, if it needs no other attempt."""
        row = self._rows.get(key)
        return row if row is not None and row.get("status") in self.done else None

    def add(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """Take a row, instead of the one that had the key, and write the file; return the row."""
        self._rows[key] = {**row, _KEY: key}
        if self.path is not None:
            write_table(list(self._rows.values()), self.path, columns=self._columns())
        return row

    def _columns(self) -> list[str]:
        columns = dict.fromkeys(name for row in self._rows.values() for name in row if name != _KEY)
        return [*columns, _KEY]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise ProtquantError(f"{path}: the table cannot be read ({error}); name another file, or remove it") from None
    if _KEY not in frame.columns or frame[_KEY].isna().any():
        raise ProtquantError(f"{path}: no table that can be resumed (a column {_KEY!r} is missing); name another file")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return {str(row[_KEY]): {str(name): value for name, value in row.items() if value is not None} for row in rows}
