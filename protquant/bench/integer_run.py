"""A worker's run of our model on integers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from protquant.bench.worker import Run
from protquant.errors import ProtquantError
from protquant.integer.recording import Recorder
from protquant.quant import load_recipe
from protquant.running.execution import Execution

__all__ = ["integer_run", "named_recipes", "recorded_run"]


class _HasRecorder(Protocol):
    """A model that holds a recording of its last run."""

    @property
    def recorder(self) -> Recorder: ...


def integer_run(execution: Execution, run: Callable[[], Any], read: Callable[[Any], Any]) -> Run:
    """Return a run of a converted model; its notes and details name the parts on integers, and the kernels."""
    backend = execution.backend
    assert backend is not None

    def counted() -> Any:
        backend.calls.clear()
        return run()

    def details() -> dict[str, Any]:
        found = execution.to_dict()
        return {
            "parts": found["parts"],
            "calls": found["operations"],  # of one run
            "weight_bytes": found["weight_bytes"],
            "weight_elements": found["weight_elements"],
        }

    return Run(counted, read, execution.summary, details)


def recorded_run(model: _HasRecorder, run: Callable[[], Any], read: Callable[[Any], Any]) -> Run:
    """Return a run of a model that is recorded as a CUDA graph; its notes say whether the recording succeeded."""

    def notes() -> str:
        if not model.recorder.is_recorded:
            return "NOT recorded: as the row above"
        return "the same, replayed as one CUDA graph, which holds memory beside what a run takes"

    return Run(run, read, notes)


def named_recipes(quants: Sequence[str | Path]) -> dict[str, str]:
    """Return the argument (name or path) of each recipe, by the recipe's name.

    Raises
    ------
    ProtquantError
        If a recipe does not exist, or two recipes have the same name, which would name two rows.
    """
    names = [load_recipe(quant).name for quant in quants]
    if len(set(names)) < len(names):
        raise ProtquantError(f"--quant {', '.join(names)}: each recipe once, and each with a name of its own")
    return dict(zip(names, map(str, quants), strict=True))
