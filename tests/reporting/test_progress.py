"""Progress is lines in a log, with the time that is left."""

import threading
import time

import pytest

from protquant.choosing import sensitivity
from protquant.measuring import evaluate, range_by_length
from protquant.models import ESMFold
from protquant.predicting import fold
from protquant.reporting import progress
from protquant.reporting.progress import Heartbeat, Progress, duration, note
from protquant.reporting.steps import Steps, open_steps


def test_lines_come_at_the_beginning_the_end_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    tell = Progress("quantize w8")
    for done in range(5, 86):
        tell("blocks", "block", done, 85, f"block {done}" if done < 85 else "")
        now += 4.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "quantize w8: blocks: 5 of 85 (block 5)"
    # Three steps of four seconds pass between two lines; the pace is that of this process.
    assert lines[1] == "quantize w8: blocks: 8 of 85 (block 8), 12 s, about 5 min 8 s left"
    assert lines[-1] == "quantize w8: blocks: 85 of 85, 5 min 20 s"
    assert len(lines) == 1 + 26 + 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3660, "1 h 1 min")]
)
def test_durations_read_as_people_write_them(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_unit_that_takes_long_tells_which_block_it_is_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], esmfold: ESMFold
):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    tell = Progress("fold x")
    tell("proteins", "protein", 0, 3)
    with tell.during(esmfold):
        for seconds in (4.0, 4.0, 4.0):
            now += seconds
            fold(esmfold, "MKTAYIAKQR", num_recycles=0)
    fold(esmfold, "MKTAYIAKQR", num_recycles=0)
    lines = capsys.readouterr().err.splitlines()
    layers = len(esmfold.lm.layers)
    assert lines == ["fold x: proteins: 0 of 3", f"fold x: proteins: 0 of 3, in layer 1 of {layers}, 12 s"]


def test_where_nothing_is_told_for_ten_seconds_a_line_says_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    heart = Heartbeat("evaluate")

    def after(seconds: float) -> list[str]:
        nonlocal now
        now += seconds
        heart.beat()
        return capsys.readouterr().err.splitlines()

    assert after(9.9) == []
    assert after(0.1) == ["evaluate: at work, 10 s"]
    with Steps(total=8, desc="methods", unit="cell", disable=True) as cells:
        for _ in Steps(["a", "b"], desc="calibrate", unit="sequence", disable=True):
            cells.set_postfix_str("gptq")
            assert after(9.0) == []
            assert heart.beat() == pytest.approx(1.0)
            said = after(1.0)
        assert said == ["evaluate: methods: 0 of 8 cells (gptq), calibrate: 1 of 2 sequences, 30 s"]
        cells.update()
        assert after(10.0) == ["evaluate: methods: 1 of 8 cells (gptq), 40 s"]
        now += 9.0
        note("something else")
        capsys.readouterr()
        assert after(9.0) == []
        assert after(1.0) == ["evaluate: methods: 1 of 8 cells (gptq), 59 s"]
    assert after(10.0) == ["evaluate: at work, 1 min 9 s"]
    tell = Progress("fold x")
    tell("proteins", "protein", 3, 8)
    capsys.readouterr()
    assert after(10.0) == ["evaluate: proteins: 3 of 8 proteins, 1 min 19 s"]  # as where workers fold
    tell("proteins", "protein", 8, 8)
    capsys.readouterr()
    assert after(10.0) == ["evaluate: at work, 1 min 29 s"]


def test_steps_that_an_error_ends_are_under_way_no_more():
    def fail() -> None:
        with Steps([1, 2], desc="x", disable=True) as steps:
            assert [id(each) for each in open_steps()] == [id(steps)]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert open_steps() == []


def test_long_work_of_every_kind_counts_its_steps(esmfold: ESMFold, calibration_file, monkeypatch: pytest.MonkeyPatch):
    told = set()
    forward = ESMFold.forward

    def spy(self, *args, **settings):
        told.update(each.text().split(":")[0] for each in open_steps())
        return forward(self, *args, **settings)

    monkeypatch.setattr(ESMFold, "forward", spy)
    range_by_length(esmfold, calibration_file)
    sensitivity(esmfold, by="block", weight_bits=(4,), activation_bits=(), sequences=["MKTAY"], num_recycles=0)
    evaluate([esmfold.source], ["w8"], limit=1, num_recycles=0)
    assert {"calibrate", "float", f"{esmfold.source}, w8"} <= told
    assert open_steps() == []


def test_a_thread_beats_while_the_work_does_not_return(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.02)
    with progress.alive("quantize"):
        deadline = time.monotonic() + 10
        while not (told := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.005)
    assert told.startswith("quantize: at work, 0 s")
    assert not [each for each in threading.enumerate() if each.name == "heartbeat"]
