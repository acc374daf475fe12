"""An interruption ends a program at once, in one line, and so does an output that nobody reads."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes are those of POSIX")


DEMO = [sys.executable, "-m", "protquant", "fold", "-m", "demo", "--even-so", "--no-plots"]


def interrupted(command: list[str], seconds: float, number: int = signal.SIGINT) -> tuple[int, str]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "number"), [(0.3, signal.SIGINT), (1, signal.SIGINT), (3, signal.SIGINT), (3, signal.SIGTERM)]
)
def test_a_signal_ends_folding_in_one_line_whenever_it_comes(tmp_path: Path, seconds: float, number: int):
    fasta = tmp_path / "long.fasta"
    fasta.write_text(f">long\n{'MKTAYIAKQRQISFVKSHFSRQ' * 30}\n")
    output = tmp_path / "out"
    code, said = interrupted([*DEMO, "-i", str(fasta), "-o", str(output)], seconds, number)
    assert code == 128 + number
    assert "Traceback" not in said
    assert said.count("interrupted") == 1
    assert said.endswith("most commands resume from them\n")
    assert not list(tmp_path.glob("out/*.tmp"))


def test_what_is_being_written_is_removed(tmp_path: Path):
    program = (
        "import os, sys, time; from protquant import start; from protquant.files import atomic_write\n"
        "start._end_in_one_line_by_signals()\n"
        "os.fsync = lambda _: (print('writing', flush=True), time.sleep(30))\n"
        "start._run(lambda: atomic_write(sys.argv[1] + '/a', 'half'))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_that_is_caught_ends_the_program_all_the_same():
    program = (
        "import time; from protquant import start\n"
        "start._SECONDS_TO_CLEAN_UP = 0.5\nstart._end_in_one_line_by_signals()\n"
        "def run():\n    while True:\n        try:\n            print('on', flush=True); time.sleep(60)\n"
        "        except KeyboardInterrupt:\n            pass\n"
        "start._run(run)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_what_is_not_to_be_interrupted_is_not():
    program = (
        "from protquant import start; import signal; start._end_in_one_line_by_signals();"
        "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    )
    command = f"trap '' INT; {sys.executable} -c '{program}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_program_without_standard_output_ends_quietly():
    command = f"{sys.executable} -m protquant recipes >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m protquant recipes --json | head -c 20"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert len(done.stdout) == 20
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_output_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "protquant", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "protquant: standard output cannot be written (No space left on device)\n"
