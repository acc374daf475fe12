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
    assert said.endswith("most commands go on from there\n")
    assert not list(tmp_path.glob("out/*.tmp"))


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m protquant recipes | head -c 20"
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
