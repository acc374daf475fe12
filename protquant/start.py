"""Where the programs begin: an interruption, or an output that nobody reads, ends them in one line.

Little is imported here, so that this holds from the first moment on.
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

_SIGNALED = 128  # and the number of the signal, as shells have it: 130 is Ctrl-C
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
    from protquant.cli import main as run  # noqa: PLC0415 (an interruption may come meanwhile)

    run()


def _sweep() -> None:
    from protquant.measuring.sweep import main as run  # noqa: PLC0415

    run()


def _esm_fold() -> None:
    from protquant.cli.esm_fold import main as run  # noqa: PLC0415

    sys.exit(run())


def _end_in_one_line_by_signals() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        # What runs behind nohup, or in the background of a script, is not to be interrupted.
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    """Say so, and let what is open be cleaned up; at the second signal, or if that takes long, end without."""
    _received.append(number)
    if len(_received) > 1:
        os._exit(_SIGNALED + number)
    with suppress(OSError):
        os.write(2, b"protquant: interrupted; what is done stays done, and most commands go on from there\n")
        # An exception is printed by whatever it goes through: by callbacks, and by imports that it breaks.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # It may also be caught there.
    timer = threading.Timer(_SECONDS_TO_CLEAN_UP, os._exit, (_SIGNALED + number,))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _run(program: Callable[[], None]) -> None:
    """Run a program, which may be interrupted, and whose standard output may be closed or be on a full disk."""
    try:
        try:
            program()
        finally:
            if sys.stdout is not None:  # it was closed from the beginning
                sys.stdout.flush()
    except BaseException as error:
        if _received:
            os._exit(_SIGNALED + _received[0])
        if not _is_of_standard_output(error):
            raise
        if error.errno != errno.EPIPE:  # a pipe that is closed was closed by who has read enough
            with suppress(OSError):
                os.write(2, f"protquant: standard output cannot be written ({error.strerror})\n".encode())
        os._exit(_UNREADABLE_OUTPUT)  # or Python would try to write the rest once more, and say so
    if _received:
        os._exit(_SIGNALED + _received[0])


def _is_of_standard_output(error: BaseException) -> TypeGuard[OSError]:
    unwritable = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF)
    return isinstance(error, OSError) and error.filename is None and error.errno in unwritable
