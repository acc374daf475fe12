"""Time several candidates by turns, each in a process of its own, and compare them round by round.

On a machine that is shared, or that changes its clock, a time says little; the ratio of two times of the same round
says much. So candidates run one after the other, round by round, and the ratio of two is the median of their ratios in
each round, not the ratio of their medians. Libraries that time code (`torch.utils.benchmark`,
`triton.testing.do_bench`, pyperf) measure one candidate at a time, and know no rounds.

Each candidate has a process of its own, which stays alive and waits while others run. So it finds memory as it would
alone, whatever others have freed, and its peak of memory is that of its own process.
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
        Function that the worker calls with `arguments`; what it returns is timed, and has the attributes of
        `worker.Run`. It must be found by its name in its module. The time that it takes is not measured; where it
        raises, the row says why.
    arguments : mapping or callable
        What JSON can hold. A callable makes it, and may write files to the folder that it is given; they are deleted
        once the candidate is built.
    notes : str
        What a reader must know; what the worker notes takes its place.
    python : str, optional
        Another interpreter, for which the file of `build` is a script that needs nothing of protquant.
    """

    name: str
    build: Callable[..., Any]
    arguments: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] = field(default_factory=dict)
    notes: str = ""
    python: str | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as a baseline.

    Attributes
    ----------
    median : float
        Median of the ratios of all rounds; above 1 is faster.
    low, high : float
        Quartiles of these ratios.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, baseline: Sequence[float], seconds: Sequence[float]) -> "Ratio":
        """Return the ratio of times that were measured in the same rounds."""
        ratios = [reference / each for reference, each in zip(baseline, seconds, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return cls(middle, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} - {self.high:.2f})"


@dataclass
class Result:
    """What was measured of a candidate.

    Attributes
    ----------
    seconds : list of float
        Time of each round.
    ratios : dict
        Ratios by name of baseline; there is none where one of the two failed.
    memory : PeakMemory or None
        How far memory rose above what was in use before a run; None where that was not asked for.
    deviation : float or None
        How far its result is from that of the first candidate that has one.
    error : str or None
        Why it failed.
    details : dict
        What its worker tells of it.
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
        """All of it as plain data."""
        return {**asdict(self), "median_seconds": self.median_seconds}


class _Worker(Protocol):
    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]: ...


def relative_deviation(name: str, found: np.ndarray, reference: np.ndarray) -> float:  # noqa: ARG001 (see `compare`)
    """Return |found - reference| / |reference|, in the Euclidean norm."""
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def compared_with(results: Sequence[Result]) -> str | None:
    """Return the name of the candidate that the others deviate from; None where all failed before."""
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
    """Run candidates by turns, one at a time, and compare them with baselines.

    Every other round goes backwards, so that none always follows the same other.

    Parameters
    ----------
    baselines : sequence of str
        Names of those candidates that the others are compared with.
    rounds, warmups : int
        Runs of each that are timed, and runs before that are not. What the last warm-up returns is compared.
    threads : int
        Threads that each candidate computes with.
    device : str
        `cpu` or `cuda`. A run on a GPU ends when the GPU has done its work, and another one, which is not timed, goes
        before it.
    memory : bool
        Whether each candidate is run once more, after all rounds, to measure the peak of memory.
    compare : callable
        Given the name of a candidate, its array and that of the first candidate: how far the first is off.
    progress : bool, optional
        Whether to draw a progress bar on standard error; by default on a terminal.
    start : callable, optional
        Given the number of threads and the interpreter, starts a worker; by default a `WorkerProcess`.

    Returns
    -------
    list of Result
        In the order of `candidates`. One that fails is there with its error, and the others go on.

    Raises
    ------
    ValueError
        For fewer than one round, names that are not unique, or a baseline that is no candidate.
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
    """Candidates with their workers, and what they have done."""

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
        """Return what `action` does; None, and no more runs of the candidate, where it fails."""
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
        """Start the worker of a candidate, and let it build."""
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
            # A GPU that ran another process has to change over first: 0.2 ms of the 1.4 that a recorded block takes.
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
            told = self.attempt(result, "notes", partial(worker.ask, "tell"))
            if told is not None:
                result.notes, result.details = told["notes"] or result.notes, told["details"]

    def _running(self) -> list[tuple[Result, _Worker]]:
        return [(result, self._workers[result.name]) for result in self.results if result.name in self._workers]


def _rise(measured: Mapping[str, int | None], device: str) -> PeakMemory:
    before, peak = measured["before"], measured["peak"]
    if before is None or peak is None:
        return PeakMemory(None, "not measured: the peak cannot be reset here (needs Linux)")
    note = "allocated by torch on the GPU" if device == "cuda" else "rise of the peak of resident memory"
    return PeakMemory(max(0, peak - before), note)
