"""Progress is lines in a log, with the time that is left."""

import pytest

from protquant.models import ESMFold
from protquant.pipelines import fold, progress
from protquant.pipelines.progress import Progress, duration


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
