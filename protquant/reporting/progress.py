"""Progress of long work: a bar on a terminal; lines of text where standard error is not a terminal."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from protquant.reporting.event_log import Level, log_event
from protquant.reporting.steps import open_steps

if TYPE_CHECKING:
    from torch import nn

    from protquant.proteins import Fasta

__all__ = ["Heartbeat", "Progress", "alive", "duration", "note", "note_rejected"]

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Reports on standard error the progress of some work and the time that is left.

    Parameters
    ----------
    label : str
        Name of the work.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._part = ""
        self._bar: tqdm[Any] | None = None
        self._first = self._started = self._printed = 0.0
        self._done = self._total = 0

    def __call__(self, part: str, unit: str, done: int, total: int, what: str = "") -> None:
        """Report the progress of one part of the work.

        Parameters
        ----------
        part, unit : str
            Name of the part, and of the units that are counted.
        done, total : int
            Number of finished units, and of all units.
        what : str
            Name of the current unit.
        """
        now = time.monotonic()
        is_new = (part, done) != (self._part, self._done)
        self._done, self._total = done, total
        _LastOutput.state = f"{part}: {done} of {total} {unit}s" if done < total else ""
        if part != self._part:
            self._part, self._first, self._started, self._printed = part, done, now, now
            self._close()
            if sys.stderr.isatty():
                label = f"{self.label}: {part}"
                self._bar = tqdm(total=total, initial=done, desc=label, unit=unit, file=sys.stderr)
                _LastOutput.is_bar = True
        if self._bar is not None:
            self._bar.set_postfix_str(what, refresh=False)
            self._bar.update(done - self._bar.n)
            _LastOutput.time = now
        elif now - self._printed >= _SECONDS_BETWEEN_LINES or done >= total or done == self._first:
            self._printed = now
            _print(self._line(done, total, what, now))
        if is_new:
            facts: dict[str, Any] = {
                "work": self.label,
                "part": part,
                "unit": unit,
                "done": done,
                "total": total,
                "what": what,
            }
            log_event("progress", **facts, seconds=round(now - self._started, 3))
        if done >= total:
            self._close()

    @contextmanager
    def during(self, model: "nn.Module") -> Iterator[None]:
        """Report, at most every ten seconds, in which layer or block the model is while it computes one unit."""
        handles = []
        for name, blocks in _chains(model):
            for number, block in enumerate(blocks, start=1):
                what = f"{name} {number} of {len(blocks)}"
                handles.append(block.register_forward_pre_hook(lambda *_, what=what: self._enter_block(what)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter_block(self, what: str) -> None:
        now = time.monotonic()
        _LastOutput.state = f"{self._part}: {self._done} of {self._total}, in {what}"
        if now - max(self._printed, _LastOutput.time) < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        if self._bar is not None:
            self._bar.set_postfix_str(what)
            _LastOutput.time = now
        else:
            _print(f"{self.label}: {_LastOutput.state}, {duration(now - self._started)}")

    def _line(self, done: int, total: int, what: str, now: float) -> str:
        made, spent = done - self._first, now - self._started
        line = f"{self.label}: {self._part}: {done} of {total}"
        line += f" ({what})" if what else ""
        line += f", {duration(spent)}" if made else ""
        # Only units that this process finished count for the pace.
        return line + (f", about {duration(spent / made * (total - done))} left" if made and done < total else "")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            _LastOutput.is_bar = False


def _chains(model: "nn.Module") -> Iterator[tuple[str, "Sequence[nn.Module]"]]:
    """Yield the name of a unit and the modules, for the layers of the language model and the blocks of the trunk."""
    lm, trunk = getattr(model, "lm", model), getattr(model, "trunk", None)
    if (layers := getattr(lm, "layers", None)) is not None:
        yield "layer", tuple(layers)
    if trunk is not None:
        yield "block", tuple(trunk.blocks)


def duration(seconds: float) -> str:
    """Return a time as people write it: `42 s`, `3 min 5 s`, `1 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def note_rejected(records: "Fasta") -> None:
    """Print the rejected records of a file, for commands that write no table of failures."""
    for record in records.rejected:
        note(f"{records.path}, line {record.line}: {record.header!r} is not used: {record.reason}; {record.remedy}")


def note(text: str, level: Level = "info") -> None:
    """Print a message on standard error, above a progress bar, and add it to the event log."""
    log_event("note", level, text=text)
    _print(text)


class _LastOutput:
    """Time of the last output of any part of the program, the current state of the work, and whether a bar shows it."""

    time, state, is_bar = 0.0, "", False


def _print(text: str) -> None:
    _LastOutput.time = time.monotonic()
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


class Heartbeat:
    """Reports the current state of a command after ten seconds without other output.

    Parameters
    ----------
    label : str
        Name of the command.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._began = _LastOutput.time = time.monotonic()
        _LastOutput.state = ""

    def beat(self) -> float:
        """Report if ten seconds have passed; return the seconds until the next call."""
        now = time.monotonic()
        rest = _LastOutput.time + _SECONDS_BETWEEN_LINES - now
        if rest > 0:
            return rest
        steps = open_steps()
        where = ", ".join(filter(None, [_LastOutput.state, *(bar.text() for bar in steps)])) or "at work"
        log_event("progress", work=self.label, what=where, seconds=round(now - self._began, 3))
        if _LastOutput.is_bar or any(not bar.disable for bar in steps):  # a bar already shows the state
            _LastOutput.time = now
        else:
            _print(f"{self.label}: {where}, {duration(now - self._began)}")
        return _SECONDS_BETWEEN_LINES


@contextmanager
def alive(label: str) -> Iterator[None]:
    """Report the current state of a command after ten seconds without other output, from a thread of its own."""
    heart, ended = Heartbeat(label), threading.Event()

    def run() -> None:
        wait = _SECONDS_BETWEEN_LINES
        while not ended.wait(wait):
            with _beating, suppress(OSError, ValueError):  # standard error may be closed
                wait = heart.beat()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=1.0)


# A process that is forked during a beat would inherit locks that nobody releases, so a fork waits for the beat.
_beating = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_beating.acquire, after_in_parent=_beating.release, after_in_child=_beating.release)
