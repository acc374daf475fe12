"""Files of one JSON object per line. Lines are appended, so an interruption can only cut the last line short."""

import os
from collections.abc import Sequence
from pathlib import Path

from protquant.files.outputs import unwritable

__all__ = ["append_lines", "split_lines"]


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete lines of a file, and the bytes after the last line end: empty, or a line that may be cut."""
    *lines, tail = data.split(b"\n")
    return lines, tail


def append_lines(path: Path, lines: Sequence[str], what: str) -> None:
    """Append lines in one write, and flush them to the disk; the cost does not grow with the file.

    Parameters
    ----------
    what : str
        Name of the content, for the error message.

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
            "Check that the folder can be written and the disk has room; a new run resumes from here.",
            error,
        ) from error
