"""Workers do what one process would, and their failures are the parent's to tell."""

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes share weights on Linux only")

# In processes of their own: this one has computed on several threads, and cannot be copied.
PROGRAM = """
import os, sys, torch
from protquant.errors import ProtquantError
from protquant.pipelines.fold_workers import check_workers, each_by_workers
check_workers(2, torch.device("cpu"))
weights = torch.ones(64, 64)
def function(item):
    {body}
try:
    print(sorted(each_by_workers(function, {items}, 2, 2)))
except Exception as error:
    print(type(error).__name__, error)
"""


def outcome(body: str, items: str = "[1, 2, 3, 4, 5]") -> str:
    program = PROGRAM.format(body=body, items=items)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_each_item_is_done_once_and_on_threads():
    assert outcome("return item * int((weights @ weights).sum() > 0)") == "[1, 2, 3, 4, 5]"
    assert outcome("return item", "[]") == "[]"
    assert outcome("return item", "[7]") == "[7]"


def test_what_a_worker_raises_the_parent_raises():
    assert outcome("raise ProtquantError('broken item')") == "ProtquantError broken item"


def test_a_worker_that_is_killed_is_told_of():
    said = outcome("os.kill(os.getpid(), 9) if item == 3 else None; return item")
    assert said.startswith("ProtquantError a worker ended (killed by signal 9). What is done is safe")


def test_workers_end_with_their_parent():
    program = PROGRAM.format(body="print(os.getpid(), flush=True); import time; time.sleep(60)", items="[1]")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        process.stdout.read()  # until the worker, which has the pipe too, has ended
    with pytest.raises(ProcessLookupError):
        os.kill(worker, signal.SIGTERM)
