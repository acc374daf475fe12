"""Progress of long work: a bar on a terminal, and lines in a log, where nobody would see a bar."""

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
    """Tells on standard error how far some work came, and how long the rest will take.

    Parameters
    ----------
    label : str
        Name of the whole work.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._part = ""
        self._bar: tqdm[Any] | None = None
        self._first = self._started = self._told = 0.0
        self._done = self._total = 0

    def __call__(self, part: str, unit: str, done: int, total: int, what: str = "") -> None:
        """Tell how far a part of the work came.

        Parameters
        ----------
        part, unit : str
            Name of the part, and of what it counts.
        done, total : int
            How many units are done, and how many there are.
        what : str
            What is worked on.
        """
        now = time.monotonic()
        is_new = (part, done) != (self._part, self._done)
        self._done, self._total = done, total
        _Spoken.of = f"{part}: {done} of {total} {unit}s" if done < total else ""
        if part != self._part:
            self._part, self._first, self._started, self._told = part, done, now, now
            self._close()
            if sys.stderr.isatty():
                label = f"{self.label}: {part}"
                self._bar = tqdm(total=total, initial=done, desc=label, unit=unit, file=sys.stderr)
                _Spoken.by_a_bar = True
        if self._bar is not None:
            self._bar.set_postfix_str(what, refresh=False)
            self._bar.update(done - self._bar.n)
            _Spoken.at = now
        elif now - self._told >= _SECONDS_BETWEEN_LINES or done >= total or done == self._first:
            self._told = now
            _say(self._line(done, total, what, now))
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
        """Tell how far a model is within one unit, wherever that takes long: which layer or block it is in."""
        handles = []
        for name, blocks in _chains(model):
            for number, block in enumerate(blocks, start=1):
                what = f"{name} {number} of {len(blocks)}"
                handles.append(block.register_forward_pre_hook(lambda *_, what=what: self._still(what)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _still(self, what: str) -> None:
        now = time.monotonic()
        _Spoken.of = f"{self._part}: {self._done} of {self._total}, in {what}"
        if now - max(self._told, _Spoken.at) < _SECONDS_BETWEEN_LINES:
            return
        self._told = now
        if self._bar is not None:
            self._bar.set_postfix_str(what)
            _Spoken.at = now
        else:
            _say(f"{self.label}: {_Spoken.of}, {duration(now - self._started)}")

    def _line(self, done: int, total: int, what: str, now: float) -> str:
        made, spent = done - self._first, now - self._started
        line = f"{self.label}: {self._part}: {done} of {total}"
        line += f" ({what})" if what else ""
        line += f", {duration(spent)}" if made else ""
        # The pace is that of this process: what an earlier one has done took none of its time.
        return line + (f", about {duration(spent / made * (total - done))} left" if made and done < total else "")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            _Spoken.by_a_bar = False


def _chains(model: "nn.Module") -> Iterator[tuple[str, "Sequence[nn.Module]"]]:
    """The parts of a model that run one after the other, and what people call them."""
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
    """Tell of the records of a file that are not used, where no table does."""
    for each in records.rejected:
        note(f"{records.path}, line {each.line}: {each.header!r} is not used: {each.reason}; {each.remedy}")


def note(text: str, level: Level = "info") -> None:
    """Tell something on standard error, above a bar that may be there, and in the log."""
    log_event("note", level, text=text)
    _say(text)


class _Spoken:
    """When something was told last, by whichever part of a command, and how far the work that tells its progress is."""

    at, of, by_a_bar = 0.0, "", False


def _say(text: str) -> None:
    _Spoken.at = time.monotonic()
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


class Heartbeat:
    """Tells what a command is at, wherever nothing else has told anything for ten seconds.

    Parameters
    ----------
    label : str
        Name of the command.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._began = _Spoken.at = time.monotonic()
        _Spoken.of = ""

    def beat(self) -> float:
        """Tell, if it is time; return after how many seconds it may be next."""
        now = time.monotonic()
        rest = _Spoken.at + _SECONDS_BETWEEN_LINES - now
        if rest > 0:
            return rest
        steps = open_steps()
        where = ", ".join(filter(None, [_Spoken.of, *(each.text() for each in steps)])) or "at work"
        log_event("progress", work=self.label, what=where, seconds=round(now - self._began, 3))
        if _Spoken.by_a_bar or any(not each.disable for each in steps):  # a bar says as much
            _Spoken.at = now
        else:
            _say(f"{self.label}: {where}, {duration(now - self._began)}")
        return _SECONDS_BETWEEN_LINES


@contextmanager
def alive(label: str) -> Iterator[None]:
    """Let a thread tell what this one is at, wherever it tells nothing for ten seconds."""
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


# A process that is copied meanwhile would hold what the thread holds, for ever.
_beating = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_beating.acquire, after_in_parent=_beating.release, after_in_child=_beating.release)
