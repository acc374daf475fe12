"""Time several candidates in alternation, each in a process of its own, and compare them round by round.

On a machine that is shared, or that changes its clock rate, single times vary; the ratio of two times of the same round
varies little. So candidates run one after the other, round by round, and we report the median of the ratios of all
rounds, not the ratio of medians. Libraries that time code (`torch.utils.benchmark`, `triton.testing.do_bench`, pyperf)
measure one candidate at a time, without rounds.

Each candidate has a process of its own, which waits while others run. So memory that others have freed does not affect
it, and its peak of memory is that of its own process.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

import numpy as np

from protquant.bench.worker import first_line
from protquant.bench.worker_process import CandidateError, WorkerProcess, plugins, target_of
from protquant.reporting.steps import Steps
from protquant.running.peak_memory import PeakMemory

__all__ = ["Candidate", "Ratio", "Result", "compared_with", "paired_benchmark", "relative_deviation"]

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    Attributes
    ----------
    name : str
        Name of its row.
    build : callable
        Function of a module that the worker calls with `arguments`. Its result is timed, and has the attributes of
        `worker.Run`. The time to build is not measured; if it raises an error, the row has the message.
    arguments : mapping or callable
        Arguments that JSON can represent. A callable returns them, and may write files to a given folder, which is
        deleted after the candidate is built.
    notes : str
        Remark for readers of the table; notes of the worker replace it.
    python : str, optional
        Another interpreter; the file of `build` is then a script that does not need protquant.
    """

    name: str
    build: Callable[..., Any]
    arguments: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] = field(default_factory=dict)
    notes: str = ""
    python: str | None = None


@dataclass(frozen=True)
class Ratio:
    """The speed of a candidate relative to a baseline.

    Attributes
    ----------
    median : float
        Median of the ratios of all rounds; a value above 1 means faster than the baseline.
    low, high : float
        Quartiles of these ratios.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, baseline: Sequence[float], seconds: Sequence[float]) -> "Ratio":
        """Return the ratio of times from the same rounds."""
        ratios = [reference / each for reference, each in zip(baseline, seconds, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return cls(middle, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} - {self.high:.2f})"


@dataclass
class Result:
    """The measurements of a candidate.

    Attributes
    ----------
    seconds : list of float
        Time of each round.
    ratios : dict
        Ratios by name of baseline, if both have finished.
    memory : PeakMemory or None
        Rise of memory during a run; None if it was not requested.
    deviation : float or None
        Distance of its result from that of the first candidate with a result.
    error : str or None
        Error message, if it failed.
    details : dict
        Further facts from its worker.
    """

    name: str
    notes: str = ""
    seconds: list[float] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    memory: PeakMemory | None = None
    deviation: float | None = None
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def median_seconds(self) -> float | None:
        return median(self.seconds) if self.seconds and self.error is None else None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {**asdict(self), "median_seconds": self.median_seconds}


class _Worker(Protocol):
    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]: ...


def relative_deviation(name: str, found: np.ndarray, reference: np.ndarray) -> float:  # noqa: ARG001 (see `compare`)
    """Return |found - reference| / |reference|, in the Euclidean norm."""
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def compared_with(results: Sequence[Result]) -> str | None:
    """Return the name of the candidate that the others are compared with; None if all have failed."""
    return next((result.name for result in results if result.deviation is not None), None)


def paired_benchmark(
    candidates: Sequence[Candidate],
    baselines: Sequence[str] = (),
    *,
    rounds: int = 5,
    warmups: int = 1,
    threads: int = 1,
    device: str = "cpu",
    memory: bool = False,
    compare: Callable[[str, np.ndarray, np.ndarray], float] = relative_deviation,
    progress: bool | None = None,
    start: Callable[[int, str | None], AbstractContextManager[_Worker]] | None = None,
) -> list[Result]:
    """Run candidates in alternation, one at a time, and compare them with baselines.

    Every other round reverses the order, so that no candidate always follows the same one.

    Parameters
    ----------
    baselines : sequence of str
        Names of the candidates that the others are compared with.
    rounds, warmups : int
        Number of timed runs of each candidate, and of runs before them. Results of the last warm-up are compared.
    threads : int
        Number of threads of each candidate.
    device : str
        `cpu` or `cuda`. On a GPU, a run ends when the GPU has finished, and an untimed run comes before each timed one.
    memory : bool
        Whether each candidate is run once more, after all rounds, to measure the peak of memory.
    compare : callable
        Function of the name of a candidate, its array, and the array of the first candidate; it returns their distance.
    progress : bool, optional
        Whether to draw a progress bar on standard error; by default on a terminal.
    start : callable, optional
        Starts a worker, given the number of threads and the interpreter; by default `WorkerProcess`.

    Returns
    -------
    list of Result
        Results in the order of `candidates`. A failed candidate has an error; the others go on.

    Raises
    ------
    ValueError
        If there is no round, names are not unique, or a baseline is not a candidate.
    """
    names = [candidate.name for candidate in candidates]
    if rounds < 1 or warmups < 0:
        raise ValueError(f"{rounds} rounds after {warmups} warm-ups: give at least 1 and 0")
    if len(set(names)) < len(names):
        raise ValueError(f"candidates have the same name: {', '.join(names)}")
    if unknown := [name for name in baselines if name not in names]:
        raise ValueError(f"baseline {unknown[0]!r} is no candidate; there are {', '.join(names)}")
    steps = len(candidates) * (1 + warmups + rounds + memory)
    with (
        TemporaryDirectory() as folder,
        Steps(total=steps, unit="run", disable=None if progress is None else not progress, leave=False) as bar,
        ExitStack() as stack,
    ):
        benchmark = _Benchmark(candidates, Path(folder), device, compare, bar)
        for candidate, result in zip(candidates, benchmark.results, strict=True):
            process = partial(start or WorkerProcess, threads, candidate.python)
            benchmark.attempt(result, "set up", partial(benchmark.build, candidate, process, stack))
            bar.update()
        for number in range(warmups):
            benchmark.warm_up(compares=number == warmups - 1)
        for number in range(rounds):
            benchmark.run_round(number)
        if memory:
            benchmark.measure_memory()
        benchmark.ask_for_notes()
        results = benchmark.results
    sound = {result.name: result for result in results if result.error is None}
    for result in sound.values():
        result.ratios = {name: Ratio.of(sound[name].seconds, result.seconds) for name in baselines if name in sound}
    return results


class _Benchmark:
    """Candidates with their workers and results."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        folder: Path,
        device: str,
        compare: Callable[[str, np.ndarray, np.ndarray], float],
        bar: Steps,
    ) -> None:
        self.folder, self.device, self.compare, self.bar = folder, device, compare, bar
        self.results = [Result(candidate.name, candidate.notes) for candidate in candidates]
        self._workers: dict[str, _Worker] = {}
        self._reference: np.ndarray | None = None

    def attempt(self, result: Result, what: str, action: Callable[[], _Answer]) -> _Answer | None:
        """Return the result of `action`; if it fails, return None and do not run the candidate again."""
        self.bar.set_description(f"{result.name}: {what}")
        try:
            return action()
        except CandidateError as error:
            result.error = f"{what}: {error}"
        except Exception as error:  # noqa: BLE001 (one that fails, however it does, is a row; the others go on)
            result.error = f"{what}: {first_line(error)}"
        self._workers.pop(result.name, None)
        return None

    def build(
        self, candidate: Candidate, process: Callable[[], AbstractContextManager[_Worker]], stack: ExitStack
    ) -> None:
        """Start the worker of a candidate, and build the candidate."""
        worker = stack.enter_context(process())
        with TemporaryDirectory() as folder:
            given = candidate.arguments
            worker.ask(
                "build",
                target=target_of(candidate.build, is_script=candidate.python is not None),
                arguments=given(Path(folder)) if callable(given) else given,
                device=self.device,
                plugins=plugins(),
            )
        self._workers[candidate.name] = worker

    def warm_up(self, *, compares: bool) -> None:
        for result, worker in self._running():
            self.attempt(result, "warm-up", partial(self._warm_up, result, worker, compares))
            self.bar.update()

    def _warm_up(self, result: Result, worker: _Worker, compares: bool) -> None:
        path = self.folder / "result.npy"
        worker.ask("turn", save=str(path) if compares else None)
        if compares:
            found = np.load(path)
            self._reference = found if self._reference is None else self._reference
            result.deviation = self.compare(result.name, found, self._reference)

    def run_round(self, number: int) -> None:
        for result, worker in self._running()[:: -1 if number % 2 else 1]:
            # A GPU needs 0.2 ms to switch processes, a seventh of the time of a recorded block: run once untimed.
            turn = partial(worker.ask, "turn", repeat=2 if self.device == "cuda" else 1)
            answer = self.attempt(result, f"round {number + 1}", turn)
            result.seconds += [] if answer is None else answer["seconds"][-1:]
            self.bar.update()

    def measure_memory(self) -> None:
        for result, worker in self._running():
            answer = self.attempt(result, "memory", partial(worker.ask, "turn", memory=True, trim=True))
            result.memory = None if answer is None else _rise(answer["memory"], self.device)
            self.bar.update()

    def ask_for_notes(self) -> None:
        for result, worker in self._running():
            answer = self.attempt(result, "notes", partial(worker.ask, "tell"))
            if answer is not None:
                result.notes, result.details = answer["notes"] or result.notes, answer["details"]

    def _running(self) -> list[tuple[Result, _Worker]]:
        return [(result, self._workers[result.name]) for result in self.results if result.name in self._workers]


def _rise(measured: Mapping[str, int | None], device: str) -> PeakMemory:
    before, peak = measured["before"], measured["peak"]
    if before is None or peak is None:
        return PeakMemory(None, "not measured: the peak cannot be reset here (needs Linux)")
    note = "allocated by torch on the GPU" if device == "cuda" else "rise of the peak of resident memory"
    return PeakMemory(max(0, peak - before), note)
