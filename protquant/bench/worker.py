"""Build one candidate of a benchmark, and run it when it is asked to: a script for a process of its own.

It needs the standard library alone, so that any interpreter can run it, and so that a candidate is charged for no other
package than its own. It reads requests from standard input, a JSON object on each line, and answers each on a line of
standard output: `{"answer": ...}`, or `{"problem": "ValueError: ..."}`. With `--stop` the first problem ends it.
"""

import ctypes
import importlib
import json
import os
import re
import runpy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Run", "Worker"]

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # proc(5), clear_refs


@dataclass(frozen=True)
class Run:
    """What a candidate's builder returns; a script may return any callable that has some of these attributes.

    Attributes
    ----------
    run : callable
        Does the work once; it is what is timed.
    read : callable
        Returns, from what `run` returned, the array in which candidates are compared.
    notes : callable
        Returns what a reader of the table must know; it is called after all runs.
    details : callable
        Returns more for the document; it is called after all runs.
    """

    run: Callable[..., Any]
    read: Callable[[Any], Any]
    notes: Callable[[], str] = str
    details: Callable[[], dict[str, Any]] = dict

    def __call__(self, **arguments: Any) -> Any:
        return self.run(**arguments)


class Worker:
    """One candidate, in the process that runs it; each method answers the request of its name."""

    run: Callable[..., Any]
    device: str

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request: its `verb` names a method, and the rest are the method's arguments."""
        arguments = dict(request)
        answer: dict[str, Any] = getattr(self, arguments.pop("verb"))(**arguments)
        return answer

    def build(
        self,
        target: str,
        arguments: Mapping[str, Any],
        device: str = "cpu",
        imports: Mapping[str, Sequence[str]] | None = None,
        plugins: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Import a package, then make the candidate.

        Parameters
        ----------
        target : str
            `module:function` or `path/to/script.py:function`; the function makes the candidate from `arguments`.
        device : str
            `cpu` or `cuda`: where the candidate computes.
        imports : mapping of str to list of str
            Names of packages that are imported before, with what is taken from each.
        plugins : sequence of str
            Python files that register methods for recipes.

        Returns
        -------
        dict
            `import_seconds`; `imported`, the memory after that; `load_seconds`; and `loaded`, the memory after that,
            with the peak of loading, and on a GPU the bytes of tensors there.
        """
        started = time.perf_counter()
        for package, names in (imports or {}).items():
            module = importlib.import_module(package)
            for name in names:
                getattr(module, name)
        import_seconds, imported = time.perf_counter() - started, _memory()
        self.device, resets = device, _reset_peak()
        started = time.perf_counter()
        for path in plugins:
            runpy.run_path(path)
        where, _, name = target.rpartition(":")
        found = runpy.run_path(where) if where.endswith(".py") else vars(importlib.import_module(where))
        self.run = found[name](**arguments)
        self._finish()
        load_seconds = time.perf_counter() - started
        loaded = _memory() | {"peak": _bytes("VmHWM") if resets else None}
        if device == "cuda":
            loaded["on_device"] = _cuda().memory_allocated()
        return {
            "import_seconds": import_seconds,
            "imported": imported,
            "load_seconds": load_seconds,
            "loaded": loaded,
        }

    def turn(
        self,
        arguments: Mapping[str, Any] | None = None,
        repeat: int = 1,
        memory: bool = False,
        trim: bool = False,
        save: str | None = None,
        show: bool = False,
    ) -> dict[str, Any]:
        """Run the candidate.

        Parameters
        ----------
        arguments : mapping, optional
            What the candidate is called with.
        repeat : int
            How many times it is called.
        memory : bool
            Whether to measure the peak of memory over all calls.
        trim : bool
            Whether the C library gives back before what is free, so that it does not hide what a call takes.
        save : str, optional
            File for the array that the candidate reads from the last result, as `numpy.save` writes it.
        show : bool
            Whether the last result itself is part of the answer.

        Returns
        -------
        dict
            `seconds` of each call; `cpu_seconds` of the last; `memory`, with `before`, `peak` and on a GPU `reserved`
            in bytes; `result`.
        """
        before = self._begin_peak(trim) if memory else None
        seconds, cpu_seconds, result = [], 0.0, None
        for _ in range(repeat):
            result = None  # It is freed here, because that is no part of the work.
            started, started_cpu = time.perf_counter(), time.process_time()
            result = self.run(**(arguments or {}))
            self._finish()
            seconds.append(time.perf_counter() - started)
            cpu_seconds = time.process_time() - started_cpu
        answer: dict[str, Any] = {"seconds": seconds, "cpu_seconds": cpu_seconds}
        if memory:
            answer["memory"] = {"before": before, "peak": None} if before is None else self._peak(before)
        if save is not None:
            # The array is numpy's, so that numpy is there.
            importlib.import_module("numpy").save(save, self.run.read(result))  # type: ignore[attr-defined]
        return answer | ({"result": result} if show else {})

    def tell(self) -> dict[str, Any]:
        """Return the candidate's `notes` and `details`."""
        return {
            "notes": getattr(self.run, "notes", str)(),
            "details": getattr(self.run, "details", dict)(),
        }

    def _finish(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            _cuda().synchronize()

    def _begin_peak(self, trim: bool) -> int | None:
        """Return the bytes in use; None where the peak cannot begin anew."""
        if self.device == "cuda":
            _cuda().empty_cache()  # What is reserved from here on is what the calls ask for.
            _cuda().reset_peak_memory_stats()
            allocated: int = _cuda().memory_allocated()
            return allocated
        if trim and (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None):
            give_back(0)
        return _bytes("VmRSS") if _reset_peak() else None

    def _peak(self, before: int) -> dict[str, int | None]:
        if self.device == "cuda":
            reserved = _cuda().max_memory_reserved()
            return {"before": before, "peak": _cuda().max_memory_allocated(), "reserved": reserved}
        return {"before": before, "peak": _bytes("VmHWM")}


def _cuda() -> Any:
    return importlib.import_module("torch").cuda


def _memory() -> dict[str, int | None]:
    return {"resident": _bytes("VmRSS"), "anonymous": _bytes("RssAnon")}


def _bytes(field: str) -> int | None:
    """Return a line of the process's status in bytes; None where the system does not tell."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _reset_peak() -> bool:
    """Let the peak of resident memory begin anew; False where the system does not, so that there is none."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """Return the type of an error, and the first line of what it says."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def main() -> None:
    """Answer until there are no more requests."""
    # Whatever a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"answer": worker.answer(json.loads(line))}
        except Exception as error:
            if "--stop" in sys.argv:
                raise
            reply = {"problem": first_line(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
