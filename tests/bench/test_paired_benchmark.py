"""Candidates take turns on a clock that the test turns: what is computed, in which order, and what a failure does."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from protquant.bench import Candidate, Ratio, Result, paired_benchmark
from protquant.bench.worker_process import CandidateError


def build() -> None:
    """No worker of these tests builds anything."""


class Clock:
    """Workers by the name of their candidate; a turn takes as many seconds as the next of those listed."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.saved: list[str] = []
        self.left: dict[str, list[float | BaseException]] = {}

    def candidate(self, name: str, *seconds: float | BaseException, notes: str = "") -> Candidate:
        self.left[name] = list(seconds)
        return Candidate(name, build, {"name": name}, notes)

    def __call__(self, *_: Any) -> Any:
        return nullcontext(_Worker(self))


class _Worker:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def ask(self, verb: str, **given: Any) -> dict[str, Any]:
        if verb == "build":
            self.name = given["arguments"]["name"]
        if verb == "tell":
            return {"notes": f"{self.name} ran" if self.name == "told" else "", "details": {"of": self.name}}
        if verb != "turn":
            return {}
        self.clock.order.append(self.name)
        seconds = self.clock.left[self.name].pop(0)
        if isinstance(seconds, BaseException):
            raise seconds
        if given.get("save"):
            self.clock.saved.append(self.name)
            np.save(given["save"], np.array([3.0, 4.0 + len(self.clock.saved)]))
        seconds = [seconds] if given.get("repeat", 1) == 1 else [seconds, self.clock.left[self.name].pop(0)]
        memory = {"before": 100, "peak": 100 + len(self.clock.order)} if given.get("memory") else None
        return {"seconds": seconds, "memory": memory}


def run(clock: Clock, candidates: list[Candidate], baselines: list[str] | None = None, **given: Any) -> list[Result]:
    return paired_benchmark(candidates, baselines or [], start=clock, progress=False, **given)


def test_a_ratio_is_the_median_of_ratios_not_the_ratio_of_medians():
    clock = Clock()
    # The machine slows down tenfold in one round, and threefold in another: for both alike.
    slow, quick = clock.candidate("slow", 9, 4, 40, 8), clock.candidate("quick", 9, 1, 10, 4)
    results = run(clock, [slow, quick], ["slow"], rounds=3)
    assert [result.seconds for result in results] == [[4, 40, 8], [1, 10, 4]]
    assert [result.median_seconds for result in results] == [8, 4]
    assert results[1].ratios["slow"] == Ratio(4.0, 3.0, 4.0)  # of 4, 4 and 2; that of the medians is 2
    assert results[0].ratios["slow"] == Ratio(1.0, 1.0, 1.0)


def test_every_other_round_goes_backwards():
    clock = Clock()
    run(clock, [clock.candidate(name, *[1] * 4) for name in "abc"], rounds=3, warmups=1)
    assert "".join(clock.order) == "abcabccbaabc"


def test_warm_ups_are_not_timed():
    clock = Clock()
    (result,) = run(clock, [clock.candidate("a", 100, 100, 1)], rounds=1, warmups=2)
    assert result.seconds == [1]


def test_on_a_gpu_the_first_run_of_a_turn_is_not_timed():
    clock = Clock()
    (result,) = run(clock, [clock.candidate("a", 9, 9, 1, 9, 2)], rounds=2, device="cuda")
    assert result.seconds == [1, 2]


def test_a_candidate_that_fails_is_a_row_and_the_others_go_on():
    clock = Clock()
    candidates = [
        clock.candidate("broken", CandidateError("RuntimeError: no such kernel")),
        clock.candidate("tires", 1, 1, MemoryError()),
        clock.candidate("sound", *[1] * 4),
    ]
    results = run(clock, candidates, ["tires", "sound"], rounds=3)
    assert [result.error for result in results] == [
        "warm-up: RuntimeError: no such kernel",
        "round 2: MemoryError",
        None,
    ]
    assert [result.median_seconds for result in results] == [None, None, 1]
    assert list(results[2].ratios) == ["sound"]  # none to a baseline that failed
    assert [result.details for result in results] == [{}, {}, {"of": "sound"}]


def test_what_the_worker_notes_takes_the_place_of_what_was_known_before():
    clock = Clock()
    results = run(clock, [clock.candidate("told", 1, 1, notes="x"), clock.candidate("b", 1, 1, notes="y")], rounds=1)
    assert [result.notes for result in results] == ["told ran", "y"]


def test_an_interruption_is_no_failure_of_a_candidate():
    clock = Clock()
    with pytest.raises(KeyboardInterrupt):
        run(clock, [clock.candidate("a", KeyboardInterrupt())])


def test_results_are_compared_once_in_order_with_the_first():
    clock, seen = Clock(), []

    def compare(name: str, found: np.ndarray, reference: np.ndarray) -> float:
        seen.append((name, found[1], reference[1]))
        return 0.5

    results = run(clock, [clock.candidate(name, *[1] * 4) for name in "ab"], rounds=2, warmups=2, compare=compare)
    assert seen == [("a", 5, 5), ("b", 6, 5)]
    assert [result.deviation for result in results] == [0.5, 0.5]


def test_a_deviation_is_relative_to_the_first():
    clock = Clock()
    results = run(clock, [clock.candidate(name, *[1] * 2) for name in "ab"], rounds=1)
    assert [result.deviation for result in results] == [0, pytest.approx(1 / 34**0.5)]


def test_memory_is_measured_after_the_rounds():
    clock = Clock()
    results = run(clock, [clock.candidate(name, *[1] * 3) for name in "ab"], rounds=1, memory=True)
    assert [result.memory.bytes for result in results] == [5, 6]
    assert [len(result.seconds) for result in results] == [1, 1]


@pytest.mark.parametrize(
    ("names", "baselines", "rounds", "message"),
    [
        ("aa", [], 1, "same name"),
        ("ab", ["c"], 1, "baseline 'c' is no candidate; there are a, b"),
        ("ab", [], 0, "0 rounds after 1 warm-ups"),
    ],
)
def test_what_makes_no_benchmark_is_refused(names, baselines, rounds, message):
    clock = Clock()
    with pytest.raises(ValueError, match=message):
        run(clock, [clock.candidate(name) for name in names], baselines, rounds=rounds)
