"""Malformed files end commands with a message, and nothing worse; `malformed.py` itself gives them hundreds."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory of forked processes is read as Linux tells it")


@pytest.mark.slow
def test_a_sample_of_malformed_files_ends_as_it_should():
    # A process of its own, because it forks.
    command = [sys.executable, Path(__file__).with_name("malformed.py"), "--count", "12", "--seed", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("12 files: ")
