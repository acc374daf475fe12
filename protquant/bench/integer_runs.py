"""Our model on integers, as a contender."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeVar

from torch import nn

from protquant.bench.choices import BACKENDS
from protquant.bench.contest import Contender
from protquant.errors import ProtquantError
from protquant.integer import Support, to_integer
from protquant.integer.recording import Recorder

__all__ = ["IntegerRun", "check_backend", "recorded_row"]

_Model = TypeVar("_Model", bound=nn.Module)


def check_backend(backend: str) -> None:
    """Raise ProtquantError if there is no such backend."""
    if backend not in BACKENDS:
        raise ProtquantError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")


class _HasRecorder(Protocol):
    """A model that keeps a recording of what it ran last."""

    recorder: Recorder


_Recorded = TypeVar("_Recorded", bound=_HasRecorder)


def recorded_row(name: str, make: Callable[[], _Recorded], time: Callable[[_Recorded], Callable[[], Any]]) -> Contender:
    """A row below that of a launched model, of the same model recorded; its notes say so, or that it is not."""
    made = cache(make)

    def notes() -> str:
        if not made().recorder.is_recorded:
            return "NOT recorded: as the row above"
        return "the same, replayed as one CUDA graph, which holds the memory that the row above takes beside its own"

    return Contender(f"{name}, recorded", lambda: time(made()), notes)


class IntegerRun:
    """A quantized model on its way to integers, and what became of its parts."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._support: Support | None = None

    def convert(self, quantized: _Model) -> _Model:
        """The model on integers; `quantized` itself is changed, and cannot be used any more."""
        running, self._support = to_integer(quantized, self.backend, inplace=True)
        return running

    def contender(self, name: str, build: Callable[[], Callable[[], Any]]) -> Contender:
        """A row whose notes and details say what ran on integers, by which kernels."""
        calls = Counter[tuple[str, str]]()

        def counted() -> Callable[[], Any]:
            run = build()

            def run_counted() -> Any:
                assert self._support is not None
                before = self._support.backend.calls.copy()
                result = run()
                calls.clear()
                calls.update(self._support.backend.calls - before)
                return result

            return run_counted

        return Contender(name, counted, self.notes, lambda: self.details(calls))

    def notes(self) -> str:
        """What ran on integers, and bytes of weights; once the model is converted."""
        assert self._support is not None
        text = self._support.summary()
        if self._support.weight_elements:
            text += f"; {self._support.weight_bytes / self._support.weight_elements:.3f} bytes per weight"
        return text

    def details(self, calls: Counter[tuple[str, str]]) -> dict[str, Any]:
        """Parts with their kernels, how often each operation ran by which kernel in one run, and bytes of weights."""
        assert self._support is not None
        return {
            "parts": self._support.to_dicts(),
            "calls": {f"{what} by {by}": count for (what, by), count in sorted(calls.items())},
            "weight_bytes": self._support.weight_bytes,
            "weight_elements": self._support.weight_elements,
        }
