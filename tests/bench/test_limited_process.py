"""A program runs inside a limit of memory, and what it took is told, however it ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from protquant.bench.limited_process import ProcessOutcome, resident_bytes, run_limited
from protquant.bench.memory_limit import NoLimit, memory_limit
from protquant.errors import ProtquantError

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at as Linux lets them")


def can_limit() -> bool:
    limit = memory_limit(100 * MIB)
    limit.close()
    return limit.enforced


limited = pytest.mark.skipif(
    sys.platform != "linux" or not can_limit(), reason="control groups of memory cannot be made here (not root?)"
)
ALLOCATE = "import sys, time; x = bytearray(b'x') * ({} * 2**20); print(len(x)); time.sleep({})"


def run(tmp_path: Path, code: str, limit: int | None = None, **given) -> ProcessOutcome:
    return run_limited(
        [sys.executable, "-S", "-c", code], limit, output=tmp_path / "output", log=tmp_path / "log", **given
    )


@limited
def test_a_program_that_takes_too_much_is_killed_and_reported(tmp_path: Path):
    outcome = run(tmp_path, ALLOCATE.format(200, 0), 100 * MIB)
    assert (outcome.exit_code, outcome.over_limit, outcome.failed) == (-9, True, True)
    assert str(outcome) == "KILLED: did not fit into 0.0977 GiB"
    assert outcome.charged_peak == 100 * MIB
    assert (tmp_path / "output").read_text() == ""


@limited
def test_a_process_that_the_program_starts_is_limited_too(tmp_path: Path):
    inner = ALLOCATE.format(200, 0)
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-S', '-c', {inner!r}]) == -9 and 3)"
    outcome = run(tmp_path, code, 100 * MIB)
    assert (outcome.exit_code, outcome.over_limit) == (3, True)


@limited
def test_what_was_taken_within_the_limit_is_told(tmp_path: Path):
    outcome = run(tmp_path, ALLOCATE.format(200, 0.5), 400 * MIB)
    assert (str(outcome), outcome.over_limit, outcome.enforced) == ("done", False, True)
    assert outcome.how in ("cgroup v1", "cgroup v2", "systemd-run --scope", "systemd-run --user --scope")
    for peak in (outcome.resident_peak, outcome.anonymous_peak, outcome.charged_peak):
        assert 200 * MIB <= peak <= 260 * MIB
    assert outcome.seconds >= 0.5
    assert 0 < outcome.cpu_seconds < outcome.seconds + 1


@limited
def test_files_that_are_read_are_charged_but_dropped_rather_than_killed_for(tmp_path: Path):
    large = tmp_path / "large"
    code = f"f = open({str(large)!r}, 'wb'); [f.write(bytes(2**20)) for _ in range(300)]; f.close()"
    outcome = run(tmp_path, code, 100 * MIB)
    assert str(outcome) == "done"
    assert outcome.charged_peak == pytest.approx(100 * MIB, rel=0.05)
    assert outcome.resident_peak < 60 * MIB
    assert large.stat().st_size == 300 * MIB


@linux
def test_where_nothing_keeps_the_limit_it_runs_and_says_so(tmp_path: Path):
    outcome = run(tmp_path, ALLOCATE.format(150, 0.5), 100 * MIB, find_limit=lambda _: NoLimit("no rights"))
    assert (str(outcome), outcome.enforced, outcome.how) == ("done", False, "no rights")
    assert outcome.limit_text == "0.0977 GiB, NOT ENFORCED"
    assert 150 * MIB <= outcome.resident_peak <= 200 * MIB
    assert 150 * MIB <= outcome.anonymous_peak <= 200 * MIB
    assert outcome.charged_peak is None


@linux
def test_the_peak_is_that_of_the_program_and_not_of_who_starts_it(tmp_path: Path):
    ours = bytearray(b"x") * (300 * MIB)  # the kernel hands this down to what is started
    outcome = run(tmp_path, ALLOCATE.format(50, 0.5))
    assert resident_bytes("VmHWM") > len(ours)
    assert 50 * MIB <= outcome.resident_peak <= 100 * MIB


@linux
def test_a_program_that_fails_says_what_it_said(tmp_path: Path):
    outcome = run(tmp_path, "import sys; print('here'); sys.exit('no such thing')")
    assert (str(outcome), outcome.exit_code, outcome.over_limit) == ("FAILED with exit code 1", 1, False)
    assert (tmp_path / "output").read_text() == "here\n"
    assert (tmp_path / "log").read_text() == "no such thing\n"


@linux
def test_a_program_killed_by_another_is_not_said_to_be_over_its_limit(tmp_path: Path):
    outcome = run(tmp_path, "import os; os.kill(os.getpid(), 9)", 400 * MIB)
    assert (outcome.exit_code, outcome.over_limit, str(outcome)) == (-9, False, "KILLED by SIGKILL")


@linux
def test_what_takes_too_long_is_stopped(tmp_path: Path):
    outcome = run(tmp_path, "import time; time.sleep(60)", timeout=0.3)
    assert (outcome.timed_out, outcome.failed, outcome.over_limit) == (True, True, False)
    assert 0.3 <= outcome.seconds < 20
    assert str(outcome).startswith("STOPPED after")


@linux
def test_what_goes_on_is_told(tmp_path: Path):
    told = []
    run(tmp_path, ALLOCATE.format(50, 1), watch=lambda *seen: told.append(seen), watch_seconds=0.3)
    assert len(told) >= 2
    seconds, resident = told[-1]
    assert 0.3 <= seconds < 20
    assert resident >= 50 * MIB


@linux
def test_an_interruption_ends_the_program(tmp_path: Path):
    def interrupt(*_):
        raise KeyboardInterrupt

    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, code, watch=interrupt, watch_seconds=0.5)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


STARTER = """
import os, signal, sys
from pathlib import Path
from protquant.bench.limited_process import run_limited
folder = Path(sys.argv[1])
inner = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
run_limited(
    [sys.executable, "-S", "-c", inner, str(folder / "pid")], None, output=folder / "output", log=folder / "log",
    watch=lambda *_: os.kill(os.getpid(), signal.SIGTERM), watch_seconds=1,
)
"""


@linux
def test_a_program_does_not_outlive_the_process_that_started_it(tmp_path: Path):
    starter = subprocess.run([sys.executable, "-c", STARTER, str(tmp_path)], check=False)
    assert starter.returncode == 128 + signal.SIGTERM
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_what_cannot_be_started_is_named(tmp_path: Path):
    with pytest.raises(ProtquantError, match="no/such/program: cannot be started"):
        run_limited(
            ["no/such/program"],
            None,
            output=tmp_path / "output",
            log=tmp_path / "log",
            find_limit=lambda _: NoLimit("none"),
        )
