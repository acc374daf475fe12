"""Run jobs over models x recipes x tasks, with results in a store from which a later run resumes."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from protquant.errors import ProtquantError
from protquant.files import fingerprint
from protquant.files.run_store import KEY, RunStore
from protquant.measuring.tasks import Outcome, Task
from protquant.models import ProteinModel
from protquant.preparing.quantize import quantize
from protquant.quant import Recipe, Report
from protquant.reporting.steps import Steps
from protquant.running.execution import Execution, is_float

__all__ = ["Job", "Measured", "ScoredModel", "model_identity", "run_grid"]

DONE, PARTIAL, FAILED = "done", "partial", "failed"


@dataclass(frozen=True)
class Job:
    """One row of a table of results.

    Attributes
    ----------
    labels : mapping
        Columns that identify the row for readers; the result does not depend on them.
    key : str
        Fingerprint of all inputs of the result.
    run : callable
        Computes the other columns.
    failed : mapping, optional
        Columns of the row if `run` fails, beside `status` and `error`. By default the error ends the run.
    """

    labels: Mapping[str, Any]
    key: str
    run: Callable[[], Mapping[str, Any]]
    failed: Mapping[str, Any] | None = None


def run_grid(
    jobs: Iterable[Job], store: RunStore, title: str = "", total: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the row of each job from the store; if it is missing, compute it and store it at once.

    Parameters
    ----------
    jobs : iterable of Job
        Jobs, which are taken one at a time, so that a model need not be loaded before its first job.
    title, total : str, int
        Title of the progress bar, and the number of jobs; without a title there is no bar.
    """
    bar = (
        Steps(jobs, desc=title, unit="job", total=total, disable=not sys.stderr.isatty(), leave=False)
        if title
        else None
    )
    for job in jobs if bar is None else bar:
        row = store.finished(job.key)
        if row is None:
            if bar is not None:
                bar.set_postfix_str(" ".join(str(label) for label in job.labels.values()))
            row = store.add(job.key, {**job.labels, **_result(job)})
        yield {name: value for name, value in {**row, **job.labels}.items() if name != KEY}


def _result(job: Job) -> Mapping[str, Any]:
    try:
        return job.run()
    except Exception as error:  # any failure of a job becomes a row, and the other jobs run
        if job.failed is None:
            raise
        said = str(error) if isinstance(error, ProtquantError) else f"{type(error).__name__}: {error}"
        return {"status": FAILED, "error": " ".join(said.split()), **job.failed}


@dataclass(frozen=True)
class Measured:
    """Results of a model under a recipe: one outcome per task, report, execution, and seconds to quantize."""

    outcomes: list[Outcome]
    report: Report
    running: Execution
    quantize_seconds: float

    @property
    def sizes(self) -> dict[str, Any]:
        """Return effective bits and bytes, for a table."""
        names = ("weight_bits", "activation_bits", "weight_bytes")
        return {name: getattr(self.report, name) for name in names}

    @property
    def status(self) -> str:
        """`done`, or `partial` if targets failed."""
        return PARTIAL if any(outcome.failures for outcome in self.outcomes) else DONE

    def require_targets(self, where: str = "") -> None:
        """Check that at least one target of each task succeeded.

        Raises
        ------
        ProtquantError
            If all targets of a task failed; the message is `where` and the first error.
        """
        for outcome in self.outcomes:
            if not outcome.targets:
                raise ProtquantError("{where}{target}: {error}".format(where=where, **outcome.failures[0]))


@dataclass
class ScoredModel:
    """A float model and its tasks; its predictions are computed at most once.

    Attributes
    ----------
    name : str
        Name of the model in tables.
    model : ESM2 or ESMFold
        The part of the model that is scored, see `Task.network`.
    identity : str
        Fingerprint of the weights, number type and device, see `model_identity`.
    tasks : sequence of Task
    sequences : sequence of str
        Sequences to calibrate on.
    store : RunStore
        Store of the float model's predictions.
    """

    name: str
    model: ProteinModel
    identity: str
    tasks: Sequence[Task]
    sequences: Sequence[str]
    store: RunStore
    _float: list[Outcome] = field(default_factory=list)

    def settings(self, recipe: Recipe | None) -> dict[str, Any]:
        """Return the inputs of scores under a recipe, for keys, without the recipe's name and execution."""
        labels = ("name", "description", "execution")
        return {
            "recipe": recipe and {name: value for name, value in recipe.to_dict().items() if name not in labels},
            "model": self.identity,
            "tasks": [task.settings() for task in self.tasks],
            "sequences": self.sequences,
            "version": version("protquant"),
        }

    def float_outcomes(self) -> list[Outcome]:
        """Return the scores of the float model, computed at most once; afterwards tasks have its predictions."""
        if not self._float:
            self._float = [self._score_float(task) for task in self.tasks]
        return self._float

    def _score_float(self, task: Task) -> Outcome:
        key = fingerprint({"identity": self.identity, "version": version("protquant"), **task.settings()})
        known = self.store.arrays(key)
        if known is not None:
            task.baseline, facts = known
            return Outcome(**facts)
        outcome = task.run(self.model, f"{self.name}, float", is_float=True)
        self.store.add_arrays(key, task.baseline, outcome)
        return outcome

    def measure(
        self,
        recipe: Recipe,
        running: Execution,
        *,
        checkpoint: Path | None = None,
        seed: int = 0,
        saved: Report | None = None,
    ) -> Measured:
        """Quantize the model, and score it.

        Parameters
        ----------
        recipe : Recipe
            Recipe; a float recipe returns the outcomes of the float model.
        running : Execution
            Execution of the quantized model.
        checkpoint, seed
            See `quantize`.
        saved : Report, optional
            Report of an already quantized model, which is scored unchanged.
        """
        if saved is None:
            self.float_outcomes()
        label = f"{self.name}, {recipe.name}"
        started = time.perf_counter()
        model, report = self.model, saved
        if report is None:
            model, report = quantize(
                self.model,
                recipe,
                self.sequences,
                execution="simulate",
                checkpoint=checkpoint,
                seed=seed,
                progress=sys.stderr.isatty(),
            )
        seconds = time.perf_counter() - started
        if is_float(recipe):
            return Measured(self.float_outcomes(), report, running, seconds)
        model = running.convert(model)
        return Measured([task.run(model, label) for task in self.tasks], report, running, seconds)


def model_identity(network: ProteinModel) -> str:
    """Return the fingerprint of the weights, the number type and the kind of device of a float model."""
    parameter = next(network.parameters())
    return f"{network.fingerprint} {parameter.dtype} {parameter.device.type}"
