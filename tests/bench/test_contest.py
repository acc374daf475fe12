"""Contests on a clock that the test turns: what is reckoned, in which order, and what a failure does."""

import pytest

from protquant.bench import Contender, Ratio, run_contest
from protquant.bench.freed_memory import FreedMemory
from protquant.running import PeakMemory


class Clock:
    """Time passes where a contender says so; a list for each contender, one entry for each run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, *seconds: float, notes: str = "") -> Contender:
        left = list(seconds)

        def run() -> str:
            self.order.append(name)
            self.now += left.pop(0)
            return name

        return Contender(name, lambda: run, notes)


def test_a_ratio_is_the_median_of_ratios_not_the_ratio_of_medians():
    clock = Clock()
    # The machine slows down tenfold in one round, and threefold in another: for both alike.
    slow, quick = clock.contender("slow", 9, 4, 40, 8), clock.contender("quick", 9, 1, 10, 4)
    standings = run_contest([slow, quick], ["slow"], rounds=3, clock=clock, progress=False)
    assert [standing.seconds for standing in standings] == [[4, 40, 8], [1, 10, 4]]
    assert [standing.median_seconds for standing in standings] == [8, 4]
    assert standings[1].ratios["slow"] == Ratio(4.0, 3.0, 4.0)  # of 4, 4 and 2; that of the medians is 2
    assert standings[0].ratios["slow"] == Ratio(1.0, 1.0, 1.0)


def test_every_other_round_goes_backwards():
    clock = Clock()
    contenders = [clock.contender(name, *[1] * 4) for name in "abc"]
    run_contest(contenders, rounds=3, warmups=1, clock=clock, progress=False)
    assert "".join(clock.order) == "abcabccbaabc"


def test_all_is_made_before_things_settle_and_nothing_has_run_yet():
    told: list[str] = []
    contenders = [Contender(name, lambda name=name: told.append(name) or (lambda: told.append("run"))) for name in "ab"]
    freed = FreedMemory()
    freed.leave_no_holes = lambda: told.append("leave no holes")
    freed.settle = lambda: told.append("settle")
    run_contest(contenders, rounds=1, warmups=0, freed=freed, progress=False)
    assert told == ["leave no holes", "a", "b", "settle", "run", "run"]


def test_what_was_never_made_tells_nothing():
    def missing() -> None:
        raise RuntimeError("not there")

    (standing,) = run_contest([Contender("a", missing, missing, missing)], rounds=1, progress=False)
    assert (standing.notes, standing.details) == ("", {}) and "not there" in standing.error


def test_warm_ups_are_not_timed():
    clock = Clock()
    (standing,) = run_contest([clock.contender("a", 100, 100, 1)], rounds=1, warmups=2, clock=clock, progress=False)
    assert standing.seconds == [1]


def test_a_contender_that_fails_is_a_row_and_the_others_go_on():
    clock = Clock()

    def broken() -> None:
        raise RuntimeError("no such kernel\nand a long story")

    def missing() -> None:
        raise ModuleNotFoundError("No module named 'elsewhere'")

    runs = iter([None, None, MemoryError()])

    def tires() -> None:
        error = next(runs)
        if error:
            raise error

    contenders = [
        Contender("broken", lambda: broken),
        Contender("absent", missing),
        Contender("tires", lambda: tires),
        clock.contender("sound", *[1] * 4),
    ]
    standings = run_contest(contenders, ["tires", "sound"], rounds=3, clock=clock, progress=False)
    assert [standing.error for standing in standings] == [
        "warm-up: RuntimeError: no such kernel",
        "set up: ModuleNotFoundError: No module named 'elsewhere'",
        "round 2: MemoryError",
        None,
    ]
    assert [standing.median_seconds for standing in standings] == [None, None, None, 1]
    assert list(standings[3].ratios) == ["sound"]  # none to a baseline that failed


def test_an_interruption_is_no_failure_of_a_contender():
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_contest([Contender("a", lambda: interrupted)], progress=False)


def test_waiting_for_a_device_is_part_of_the_time():
    clock = Clock()

    def finish() -> None:
        clock.now += 10

    (standing,) = run_contest([clock.contender("a", 1, 1, 1)], rounds=2, clock=clock, finish=finish, progress=False)
    assert standing.seconds == [11, 11]


def test_results_are_compared_once_and_in_order():
    clock, seen = Clock(), []

    def compare(name: str, result: str) -> float:
        seen.append((name, result))
        return len(seen) / 10

    contenders = [clock.contender(name, *[1] * 4) for name in "ab"]
    standings = run_contest(contenders, rounds=2, warmups=2, clock=clock, compare=compare, progress=False)
    assert seen == [("a", "a"), ("b", "b")]
    assert [standing.deviation for standing in standings] == [0.1, 0.2]


def test_memory_is_measured_after_the_rounds():
    clock = Clock()

    def measure(run) -> PeakMemory:
        run()
        return PeakMemory(len(clock.order), "")

    standings = run_contest(
        [clock.contender(name, *[1] * 3) for name in "ab"],
        rounds=1,
        clock=clock,
        measure_memory=measure,
        progress=False,
    )
    assert [standing.memory.bytes for standing in standings] == [5, 6]
    assert [len(standing.seconds) for standing in standings] == [1, 1]


def test_notes_may_be_known_only_at_the_end():
    said = []

    def build():
        said.append("by onednn")
        return lambda: None

    (standing,) = run_contest([Contender("a", build, lambda: said[0])], rounds=1, progress=False)
    assert standing.notes == "by onednn"


@pytest.mark.parametrize(
    ("names", "baselines", "rounds", "message"),
    [
        ("aa", [], 1, "same name"),
        ("ab", ["c"], 1, "baseline 'c' is no contender; there are a, b"),
        ("ab", [], 0, "0 rounds after 1 warm-ups"),
    ],
)
def test_what_makes_no_contest_is_refused(names, baselines, rounds, message):
    with pytest.raises(ValueError, match=message):
        run_contest([Clock().contender(name) for name in names], baselines, rounds=rounds, progress=False)
