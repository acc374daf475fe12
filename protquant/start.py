"""Where the programs begin: an interruption, or an output that nobody reads, ends them in one line.

Little is imported here, so that this holds from the first moment on.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

__all__ = ["main", "sweep"]

_SIGNALED = 128  # and the number of the signal, as shells have it: 130 is Ctrl-C
_UNREADABLE_OUTPUT = 1


def main() -> None:
    """Run `protquant`."""
    _end_in_one_line_by_signals()
    from protquant.cli import main as run  # noqa: PLC0415 (an interruption may come meanwhile)

    _write_or_end(run)


def sweep() -> None:
    """Run `protquant-sweep`."""
    _end_in_one_line_by_signals()
    from protquant.pipelines.sweep import main as run  # noqa: PLC0415

    _write_or_end(run)


def _end_in_one_line_by_signals() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    """End at once: an exception could be caught or printed by whatever runs, deep in another library."""
    # Not imported for this: where it is not loaded, nothing is being written.
    outputs = sys.modules.get("protquant.proteins.outputs")
    if outputs is not None:
        with suppress(Exception):
            outputs.discard_unfinished()
    with suppress(OSError):
        os.write(2, b"protquant: interrupted; what is done stays done, and most commands go on from there\n")
    os._exit(_SIGNALED + number)


def _write_or_end(run: Callable[[], None]) -> None:
    """Run a program, whose standard output may be closed before its end, or be on a full disk."""
    try:
        try:
            run()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        if error.errno != errno.EPIPE:  # a pipe that is closed was closed by who has read enough
            with suppress(OSError):
                os.write(2, f"protquant: standard output cannot be written ({error.strerror})\n".encode())
        os._exit(_UNREADABLE_OUTPUT)  # or Python would try to write the rest once more, and say so
