"""Results on disk, stored by the fingerprint of all their inputs, so that a later run computes only what is missing."""

import contextlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.files.array_file import decode_arrays, encode_arrays
from protquant.files.fingerprints import json_value
from protquant.files.json_lines import append_lines, split_lines
from protquant.files.outputs import atomic_write, prepare_folder
from protquant.files.plain_data import parse_json
from protquant.files.table import write_table

__all__ = ["KEY", "RunStore"]

log = logging.getLogger(__name__)

KEY = "key"
"""Column with the fingerprint of all inputs of a row."""


class RunStore:
    """Store of rows and arrays by key. Several processes may add to one store at the same time.

    All rows are in one file. A table (`.csv` or `.parquet`) is also an output for users and is rewritten with each row;
    a row that a user deletes is computed again. A `.jsonl` file grows by a line for each row, and rows may be nested; a
    last line that an interruption cut short is ignored. Arrays are in a folder beside the table, or in the folder of
    the `.jsonl` file, one file per key.

    Parameters
    ----------
    path : Path or None
        The file of the rows, which may exist. With None, rows stay in memory and arrays are dropped.
    done : collection of str, optional
        Values of the column `status` that mark a row as finished; by default every row is finished.

    Attributes
    ----------
    folder : Path or None
        Folder of the arrays.

    Raises
    ------
    ProtquantError
        If the file has another suffix, cannot be read or written, or is not a store.
    """

    def __init__(self, path: Path | None, done: Collection[str] | None = None) -> None:
        self.path, self.done = path, done
        self.folder: Path | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._columns: list[str] = []  # of the table, those without any value too
        if path is None:
            return
        self._is_table = path.name.lower().endswith((".csv", ".csv.gz", ".parquet"))
        if not self._is_table and path.suffix.lower() != ".jsonl":
            raise ProtquantError(f"{path}: a table that can be resumed ends in .csv or .parquet")
        self.folder = path.with_suffix(".resume") if self._is_table else path.parent
        prepare_folder(path.parent)
        self._read()

    def finished(self, key: str) -> dict[str, Any] | None:
        """Return the finished row of a key, or None."""
        row = self._rows.get(key)
        return row if row is not None and (self.done is None or row.get("status") in self.done) else None

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows, those of other runs too; each has a value `key`."""
        return list(self._rows.values())

    def add(self, key: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write a row at once, replacing an earlier row of this key; return it.

        Raises
        ------
        ProtquantError
            If the file cannot be written.
        """
        whole = {**row, KEY: key}
        if self.path is None:
            self._rows[key] = whole
            return whole
        with self._alone():
            torn = self._read()
            self._rows[key] = whole
            if self._is_table:
                columns = dict.fromkeys([*self._columns, *whole])
                write_table(self.rows(), self.path, columns=[*(name for name in columns if name != KEY), KEY])
            elif torn:
                atomic_write(self.path, "".join(f"{_line(stored)}\n" for stored in self._rows.values()))
            else:
                append_lines(self.path, [_line(whole)], "the file of results")
        return whole

    def arrays(self, key: str) -> tuple[dict[str, NDArray[Any]], Any] | None:
        """Return the arrays and facts of a key; None if there are none, or the file is damaged."""
        if self.folder is None:
            return None
        path = self._arrays_path(key)
        try:
            return decode_arrays(path.read_bytes(), key)
        except FileNotFoundError:
            return None
        except (OSError, ProtquantError) as error:
            log.warning("%s cannot be used (%s); it is computed anew", path, error)
            return None

    def add_arrays(self, key: str, arrays: Mapping[str, NDArray[Any]], facts: Any) -> None:
        """Write arrays and facts (values of JSON types).

        Raises
        ------
        ProtquantError
            If the file cannot be written.
        """
        if self.folder is not None:
            prepare_folder(self.folder)
            atomic_write(self._arrays_path(key), encode_arrays(key, arrays, json_value(facts, keep_nan=True)))

    def _arrays_path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key[:32]}.safetensors"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        from filelock import FileLock  # noqa: PLC0415 (it takes time to import)

        assert self.path is not None
        lock = self.path.with_name(f".{self.path.name}.lock")
        with FileLock(lock):
            try:
                yield
            finally:  # a process that waits for the lock sees that the file is gone, and creates it anew
                with contextlib.suppress(OSError):
                    lock.unlink()

    def _read(self) -> bool:
        """Read the file, which other processes may have changed; return whether its last line is cut short."""
        assert self.path is not None
        try:
            if self._is_table:
                self._columns, self._rows = _read_table(self.path)
                return False
            lines, tail = split_lines(self.path.read_bytes())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ProtquantError(f"{self.path}: the results cannot be read ({error.strerror})") from None
        self._rows = {}
        for number, line in enumerate(lines, start=1):
            try:
                row = parse_json(line)
                self._rows[str(row[KEY])] = dict(row)
            except (ValueError, KeyError, TypeError) as error:
                raise ProtquantError(
                    f"{self.path}, line {number}: the results are damaged ({type(error).__name__}: {error}). "
                    "Delete the file to compute them again."
                ) from None
        return bool(tail)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(json_value(row, keep_nan=True))


def _read_table(path: Path) -> tuple[list[str], dict[str, dict[str, Any]]]:
    try:
        frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # the errors of pandas and pyarrow are ValueErrors
        raise ProtquantError(f"{path}: the table cannot be read ({error}); name another file, or remove it") from None
    if KEY not in frame.columns or frame[KEY].isna().any():
        raise ProtquantError(f"{path}: cannot be resumed, as the column {KEY!r} is missing or incomplete; name another")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    by_key = {str(row[KEY]): {str(name): value for name, value in row.items() if value is not None} for row in rows}
    return [str(name) for name in frame.columns], by_key
