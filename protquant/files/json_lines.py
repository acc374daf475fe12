"""Files of one JSON object a line, to which lines are added: an interruption leaves at worst a cut last line."""

import os
from collections.abc import Sequence
from pathlib import Path

from protquant.files.outputs import unwritable

__all__ = ["append_lines", "split_lines"]


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete lines of a file, and what is behind the last line end: empty, or a line that may be cut."""
    *lines, tail = data.split(b"\n")
    return lines, tail


def append_lines(path: Path, lines: Sequence[str], what: str) -> None:
    """Add lines in one write, and flush them to the disk: it costs the same for the first and the ten thousandth.

    Parameters
    ----------
    what : str
        What the file is, for the error.

    Raises
    ------
    ProtquantError
        If the file cannot be written; an `OutputError` if the disk is full.
    """
    try:
        with path.open("ab") as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise unwritable(
            f"{path}: {what} cannot be written ({error.strerror}). "
            "Check that the folder can be written and the disk has room; run again to go on from here.",
            error,
        ) from error
