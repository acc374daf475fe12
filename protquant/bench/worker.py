"""Build one candidate of a benchmark, and run it on request: a script for a process of its own.

It needs only the standard library, so that any interpreter can run it, and so that the memory of a candidate includes
no other packages than its own. It reads requests from standard input, a JSON object on each line, and writes an answer
for each to a line of standard output: `{"answer": ...}`, or `{"problem": "ValueError: ..."}`. With `--stop`, the
process ends at the first problem.
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
    """The result of a candidate's builder; a script may return any callable, with or without these attributes.

    Attributes
    ----------
    run : callable
        Does the work once, and is timed.
    read : callable
        Returns the array for the comparison of candidates, given the result of `run`.
    notes : callable
        Returns a remark for readers of the table; it is called after all runs.
    details : callable
        Returns further facts for the document; it is called after all runs.
    """

    run: Callable[..., Any]
    read: Callable[[Any], Any]
    notes: Callable[[], str] = str
    details: Callable[[], dict[str, Any]] = dict

    def __call__(self, **arguments: Any) -> Any:
        return self.run(**arguments)


class Worker:
    """One candidate in its own process; each method answers the request of the same name."""

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
        """Import packages, then build the candidate.

        Parameters
        ----------
        target : str
            `module:function` or `path/to/script.py:function`; the function returns the candidate for `arguments`.
        device : str
            Device of the candidate: `cpu` or `cuda`.
        imports : mapping of str to list of str
            Packages to import first, with the names that are used from each.
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
            Arguments of the candidate.
        repeat : int
            Number of calls.
        memory : bool
            Whether to measure the peak of memory over all calls.
        trim : bool
            Whether the C library first returns free memory to the system, so that all memory of a call is seen.
        save : str, optional
            File for the array that the candidate reads from the last result, in the format of `numpy.save`.
        show : bool
            Whether to include the last result in the answer.

        Returns
        -------
        dict
            `seconds` of each call; `cpu_seconds` of the last; `memory`, with `before`, `peak` and on a GPU `reserved`
            in bytes; `result`.
        """
        before = self._begin_peak(trim) if memory else None
        seconds, cpu_seconds, result = [], 0.0, None
        for _ in range(repeat):
            result = None  # Free the result outside of the timed part.
            started, started_cpu = time.perf_counter(), time.process_time()
            result = self.run(**(arguments or {}))
            self._finish()
            seconds.append(time.perf_counter() - started)
            cpu_seconds = time.process_time() - started_cpu
        answer: dict[str, Any] = {"seconds": seconds, "cpu_seconds": cpu_seconds}
        if memory:
            answer["memory"] = {"before": before, "peak": None} if before is None else self._peak(before)
        if save is not None:
            # numpy is installed, because the array comes from it.
            importlib.import_module("numpy").save(save, self.run.read(result))  # type: ignore[attr-defined]
        return answer | ({"result": result} if show else {})

    def tell(self) -> dict[str, Any]:
        """Return the candidate's `notes` and `details`."""
        return {
            "notes": getattr(self.run, "notes", str)(),
            "details": getattr(self.run, "details", dict)(),
        }

    def _finish(self) -> None:
        """Wait until the device has finished its work."""
        if self.device == "cuda":
            _cuda().synchronize()

    def _begin_peak(self, trim: bool) -> int | None:
        """Reset the peak, and return the bytes in use; None if the peak cannot be reset."""
        if self.device == "cuda":
            _cuda().empty_cache()  # From here on, torch reserves memory only for the calls.
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
    """Return a line of the process's status in bytes; None if the system does not report it."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _reset_peak() -> bool:
    """Reset the peak of resident memory; return False if the system cannot do this."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """Return the type of an error, and the first line of its message."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def main() -> None:
    """Answer requests until the end of standard input."""
    # Output of libraries must not mix with the answers.
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
