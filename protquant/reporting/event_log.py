"""A log of the events of a run: a file of JSON lines for programs that watch the run and for later reading."""

import json
import logging
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from protquant.errors import ProtquantError

__all__ = ["Level", "event_log", "log_event"]

Level = Literal["info", "warning", "error"]


_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Characters that JSON does not escape, although some programs treat them as line ends."""


class _Log:
    """A file to which lines are appended. Each line is one system call, so lines of several processes do not mix."""

    def __init__(self, path: Path) -> None:
        self.path, self.counts = path, Counter[str]()
        try:
            self._file: int | None = os.open(
                path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
            )
            if _is_torn(path):  # a killed run left half a line
                os.write(self._file, b"\n")
        except OSError as error:
            raise ProtquantError(
                f"--log {path}: the file cannot be written ({error.strerror}); name another"
            ) from error

    def write(self, event: str, level: Level, facts: dict[str, Any]) -> None:
        self.counts[event] += 1
        if self._file is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {key: None if isinstance(fact, float) and not isfinite(fact) else fact for key, fact in facts.items()}
        line = json.dumps({"time": now, "level": level, "event": event, **known}, default=str, ensure_ascii=False)
        data = f"{line.translate(_LINE_ENDS)}\n".encode(errors="replace")
        try:
            written = os.write(self._file, data)
            reason = "the disk is full" if written < len(data) else ""
        except OSError as error:
            reason = str(error.strerror)
        if reason:  # the log must not stop the run
            self.close()
            sys.stderr.write(f"--log {self.path}: WARNING: {reason}; the run goes on, and nothing more is logged\n")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Warnings(logging.Handler):
    """Copies warnings of the `logging` module to the event log."""

    def emit(self, entry: logging.LogRecord) -> None:
        log_event("note", "error" if entry.levelno >= logging.ERROR else "warning", text=entry.getMessage())


_current: _Log | None = None


def log_event(event: str, level: Level = "info", **facts: Any) -> None:
    """Append an event to the open log; without an open log, do nothing.

    Parameters
    ----------
    event : str
        Kind of the event.
    **facts
        Facts about the event; values that are not of a JSON type are stored as text.
    """
    if _current is not None:
        _current.write(event, level, facts)


@contextmanager
def event_log(path: Path, **begin: Any) -> Iterator[None]:
    """Log events to a file, from the event `begin` to the event `end`; earlier content of the file is kept.

    Parameters
    ----------
    path : Path
        The file; it is created if it does not exist.
    **begin
        Facts about the first event.

    Raises
    ------
    ProtquantError
        If the file cannot be written.
    """
    global _current  # noqa: PLW0603 (one run, one log)
    log, before, handler = _Log(path), _current, _Warnings(logging.WARNING)
    _current, started, status = log, time.monotonic(), 0
    logging.getLogger().addHandler(handler)
    log_event("begin", **begin)
    try:
        yield
    except KeyboardInterrupt:
        status = 130
        log_event("interrupted", "warning")
        raise
    except BaseException as error:
        # Exits of typer and of Python have a status; any other exception ends the program with status 1.
        code = getattr(error, "exit_code", getattr(error, "code", 1))
        status = code if isinstance(code, int) else 0 if code is None else 1
        if not hasattr(error, "exit_code"):
            log_event("error", "error", text=f"{type(error).__name__}: {error}")
        raise
    finally:
        counts = {name: log.counts[name] for name in ("done", "failed")}
        seconds = round(time.monotonic() - started, 3)
        log_event("end", "error" if status else "info", status=status, seconds=seconds, **counts)
        logging.getLogger().removeHandler(handler)
        log.close()
        _current = before


def _is_torn(path: Path) -> bool:
    """Whether the last line of a file has no line end."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode) or facts.st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
