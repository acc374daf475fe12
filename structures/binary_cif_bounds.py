"""Bounds on the unpacked size of BinaryCIF columns (run lengths, string arrays), checked before unpacking.

`biotite`, which reads the files, does not check the sizes that a file states.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgpack
import numpy as np
from biotite.structure.io.pdbx.encoding import decode_stepwise, deserialize_encoding

from protquant.errors import ProtquantError

__all__ = ["check_bounds"]


def check_bounds(data: bytes, category: str, longest: int, source: str) -> None:
    """Refuse columns that state more values than the file has bytes, or contain overlong strings.

    Parameters
    ----------
    category : str
        Table whose columns are checked. It must have coordinates, so that every row takes some bytes.
    longest : int
        Largest length of a string.

    Raises
    ------
    ProtquantError
        If a column exceeds a bound; the message names it.
    """
    for block in msgpack.unpackb(data)["dataBlocks"]:
        for table in block["categories"]:
            if str(table["name"]).strip("_") == category:
                for column in table["columns"]:
                    _check(column, len(data), longest, f"{source}: column {str(column['name'])[:longest]}")


def _check(column: Mapping[str, Any], most: int, longest: int, where: str) -> None:
    for part in (column["data"], column.get("mask")):
        for encoding in _encodings(part["encoding"]) if part else ():
            if (size := encoding["srcSize"] if encoding["kind"] == "RunLength" else encoding.get("srcSize", 0)) > most:
                raise ProtquantError(f"{where} is said to have {size} values, more than its file has bytes.")
        # Decode strings only after all stated sizes are known to be small.
        for encoding in part["encoding"] if part else ():
            if encoding["kind"] == "StringArray":
                steps = [deserialize_encoding(step) for step in encoding["offsetEncoding"]]
                lengths = np.diff(np.asarray(decode_stepwise(encoding["offsets"], steps)))
                if lengths.size and lengths.max() > longest:
                    raise ProtquantError(f"{where} has a string of {lengths.max()} characters.")


def _encodings(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        for nested in ("dataEncoding", "offsetEncoding"):
            yield from _encodings(step.get(nested, []))
