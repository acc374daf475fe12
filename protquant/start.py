"""Entry points of the programs. An interruption or a closed standard output ends them with one line, not a traceback.

This module imports little, so that an interruption during slow imports is handled too.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TypeGuard

__all__ = ["esm_fold", "main", "sweep"]

_SIGNALED = 128  # plus the number of the signal, as in shells: 130 is Ctrl-C
_UNREADABLE_OUTPUT = 1
_SECONDS_TO_CLEAN_UP = 5.0
_received: list[int] = []


def main() -> None:
    """Run `protquant`."""
    _end_in_one_line_by_signals()
    _run(_protquant)


def sweep() -> None:
    """Run `protquant-sweep`."""
    _end_in_one_line_by_signals()
    _run(_sweep)


def esm_fold() -> None:
    """Run `protquant-esm-fold`."""
    _end_in_one_line_by_signals()
    _run(_esm_fold)


def _protquant() -> None:
    from protquant.cli import main as run  # noqa: PLC0415 (signals must be handled during slow imports)

    run()


def _sweep() -> None:
    from protquant.measuring.sweep import main as run  # noqa: PLC0415

    run()


def _esm_fold() -> None:
    from protquant.cli.esm_fold import main as run  # noqa: PLC0415

    sys.exit(run())


def _end_in_one_line_by_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        # A program under nohup, or in the background of a script, ignores the signal and must go on doing so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    """Print a line and clean up; at a second signal, or after 5 s, exit without cleaning up."""
    _received.append(number)
    if len(_received) > 1:
        os._exit(_SIGNALED + number)
    with suppress(OSError):
        os.write(2, b"protquant: interrupted; finished results are kept, and most commands resume from them\n")
        # Callbacks and interrupted imports print the exception that is raised below: silence them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Such code may also catch the exception, so a timer makes sure that the program ends.
    timer = threading.Timer(_SECONDS_TO_CLEAN_UP, os._exit, (_SIGNALED + number,))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _run(program: Callable[[], None]) -> None:
    """Run a program; handle an interruption, a closed standard output and a full disk."""
    try:
        try:
            program()
        finally:
            if sys.stdout is not None:  # None: it was closed when Python started
                sys.stdout.flush()
    except BaseException as error:
        if _received:
            os._exit(_SIGNALED + _received[0])
        if not _is_of_standard_output(error):
            raise
        if error.errno != errno.EPIPE:  # the reader of a pipe closed it because it has read enough
            with suppress(OSError):
                os.write(2, f"protquant: standard output cannot be written ({error.strerror})\n".encode())
        os._exit(_UNREADABLE_OUTPUT)  # a normal exit would write the rest again and print the error
    if _received:
        os._exit(_SIGNALED + _received[0])


def _is_of_standard_output(error: BaseException) -> TypeGuard[OSError]:
    unwritable = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF)
    return isinstance(error, OSError) and error.filename is None and error.errno in unwritable
