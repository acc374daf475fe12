"""A contest: the same work done by several contenders in turn, in one process, and how they compare.

On a machine that is shared, or that changes its clock, a time says little; the ratio of two times of the same round
says much. So contenders run one after the other, round by round, and the ratio of two is the median of their ratios in
each round, not the ratio of their medians.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Any, TypeVar

from protquant.bench.freed_memory import FreedMemory
from protquant.reporting.steps import Steps
from protquant.running.peak_memory import PeakMemory

__all__ = ["Contender", "Ratio", "Standing", "run_contest"]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes
    ----------
    name : str
        What its row is called.
    build : callable
        Makes what is timed: a callable without arguments. What it takes to make it is not timed; where it raises, the
        row says why.
    notes : str or callable
        What a reader must know of it; a callable is asked when all runs are over.
    details : callable, optional
        More, for a document; asked at the same time.
    """

    name: str
    build: Callable[[], Callable[[], Any]]
    notes: str | Callable[[], str] = ""
    details: Callable[[], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as a baseline.

    Attributes
    ----------
    median : float
        Of the ratios of all rounds; above 1 is faster.
    low, high : float
        Quartiles of these ratios.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, baseline: Sequence[float], seconds: Sequence[float]) -> "Ratio":
        """From the times of the same rounds."""
        ratios = [reference / each for reference, each in zip(baseline, seconds, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return cls(middle, low, high)


@dataclass
class Standing:
    """What a contender did.

    Attributes
    ----------
    seconds : list of float
        One for each round.
    ratios : dict
        By name of baseline; none where one of the two failed.
    memory : PeakMemory or None
        None where it was not measured.
    deviation : float or None
        How far its result is from that of the float model; None where that was not asked.
    error : str or None
        Why it failed.
    details : dict
        What the contender says of itself.
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


def run_contest(
    contenders: Sequence[Contender],
    baselines: Sequence[str] = (),
    *,
    rounds: int = 5,
    warmups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    freed: FreedMemory | None = None,
    finish: Callable[[], Any] | None = None,
    measure_memory: Callable[[Callable[[], Any]], PeakMemory] | None = None,
    compare: Callable[[str, Any], float] | None = None,
    progress: bool | None = None,
) -> list[Standing]:
    """Run contenders in turn, and compare them with baselines.

    Every other round goes backwards, so that none always follows the same other.

    Parameters
    ----------
    baselines : sequence of str
        Names of those contenders that the others are compared with.
    rounds, warmups : int
        Runs of each that are timed, and runs before that are not.
    clock : callable
        Seconds.
    freed : FreedMemory, optional
        Told when contenders are made, and when all are there.
    finish : callable, optional
        Waits until a device has done what it was told to; part of every run.
    measure_memory : callable, optional
        Runs a contender once more, after all rounds, and says how much memory that took.
    compare : callable, optional
        Given the name and the result of the last warm-up of each, in their order: how far the result is off.
    progress : bool, optional
        Whether to draw a progress bar on standard error; by default on a terminal.

    Returns
    -------
    list of Standing
        In the order of `contenders`. One that fails is there with its error, and the others go on.

    Raises
    ------
    ValueError
        For fewer than one round, names that are not unique, or a baseline that is no contender.
    """
    names = [contender.name for contender in contenders]
    if rounds < 1 or warmups < 0:
        raise ValueError(f"{rounds} rounds after {warmups} warm-ups: give at least 1 and 0")
    if len(set(names)) < len(names):
        raise ValueError(f"contenders have the same name: {', '.join(names)}")
    if unknown := [name for name in baselines if name not in names]:
        raise ValueError(f"baseline {unknown[0]!r} is no contender; there are {', '.join(names)}")
    contest = _Contest(contenders, clock, finish, compare)
    steps = len(contenders) * (1 + warmups + rounds + (measure_memory is not None))
    with Steps(total=steps, unit="run", disable=None if progress is None else not progress, leave=False) as bar:
        contest.bar = bar
        if freed is not None:
            freed.leave_no_holes()
        contest.set_up()
        if freed is not None:
            freed.settle()
        for number in range(warmups + rounds):
            round_number = number - warmups  # negative in warm-ups, which go in order
            contest.run_round(
                backwards=round_number > 0 and round_number % 2 == 1,
                warmup=round_number < 0,
                compares=round_number == -1,
            )
        if measure_memory is not None:
            contest.measure(measure_memory)
    sound = {standing.name: standing for standing in contest.standings if standing.error is None}
    for standing in sound.values():
        standing.ratios = {name: Ratio.of(sound[name].seconds, standing.seconds) for name in baselines if name in sound}
    for contender, standing in zip(contenders, contest.standings, strict=True):
        if isinstance(contender.notes, str):
            standing.notes = contender.notes
        elif standing.error is None:  # What was never made has nothing to tell.
            standing.notes = contender.notes()
        if contender.details is not None and standing.error is None:
            standing.details = contender.details()
    return contest.standings


class _Contest:
    """Contenders that still run, and what they have done."""

    bar: Any

    def __init__(
        self,
        contenders: Sequence[Contender],
        clock: Callable[[], float],
        finish: Callable[[], Any] | None,
        compare: Callable[[str, Any], float] | None,
    ) -> None:
        self.contenders, self.clock, self.finish, self.compare = contenders, clock, finish, compare
        self.standings = [Standing(contender.name) for contender in contenders]
        self._running: dict[str, Callable[[], Any]] = {}

    def _attempt(self, standing: Standing, what: str, action: Callable[[], _Result]) -> _Result | None:
        """The result of `action`; None, and no more runs, where it fails."""
        self.bar.set_description(f"{standing.name}: {what}")
        try:
            return action()
        except Exception as error:  # noqa: BLE001 (one that fails, however it does, is a row; the others go on)
            standing.error = f"{what}: {_said(error)}"
            self._running.pop(standing.name, None)
            return None
        finally:
            self.bar.update()

    def set_up(self) -> None:
        for contender, standing in zip(self.contenders, self.standings, strict=True):
            run = self._attempt(standing, "set up", contender.build)
            if run is not None:
                self._running[contender.name] = run

    def run_round(self, *, backwards: bool, warmup: bool, compares: bool) -> None:
        for standing in reversed(self.standings) if backwards else self.standings:
            run = self._running.get(standing.name)
            if run is None:
                continue
            if compares and self.compare is not None:
                compared = partial(_compared, run, self.compare, standing.name)
                standing.deviation = self._attempt(standing, "warm-up", compared)
            elif warmup:
                self._attempt(standing, "warm-up", run)
            else:
                timed = partial(_timed, run, self.clock, self.finish)
                seconds = self._attempt(standing, f"round {len(standing.seconds) + 1}", timed)
                standing.seconds += [] if seconds is None else [seconds]

    def measure(self, measure_memory: Callable[[Callable[[], Any]], PeakMemory]) -> None:
        for standing in self.standings:
            run = self._running.get(standing.name)
            if run is not None:
                standing.memory = self._attempt(standing, "memory", partial(measure_memory, run))


def _timed(run: Callable[[], Any], clock: Callable[[], float], finish: Callable[[], Any] | None) -> float:
    started = clock()
    result = run()
    if finish is not None:
        finish()
    seconds = clock() - started
    del result  # not before: to free it is no part of the work
    return seconds


def _compared(run: Callable[[], Any], compare: Callable[[str, Any], float], name: str) -> float:
    return compare(name, run())


def _said(error: Exception) -> str:
    """The first line of what an error says."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
