"""Workers do what one process would, and their failures are the parent's to tell."""

import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes share weights on Linux only")

# In processes of their own: this one has computed on several threads, and cannot be copied.
PROGRAM = """
import os, sys, torch
from protquant.errors import ProtquantError
from protquant.predicting.fold_workers import each_by_workers, threads_for
{before}
threads_for(2, torch.device("cpu")).__enter__()
weights = torch.ones(64, 64)
def function(item):
    {body}
try:
    print(sorted(each_by_workers(function, {items}, 2, 2)))
except Exception as error:
    print(type(error).__name__, error)
"""


def outcome(body: str, items: str = "[1, 2, 3, 4, 5]", before: str = "") -> str:
    program = PROGRAM.format(body=body, items=items, before=before)
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


@pytest.mark.slow
def test_a_process_that_has_computed_before_is_told_that_it_cannot_be_copied():
    before = (
        "import protquant.predicting.fold_workers as w; w._SECONDS_TO_BEGIN = 5\n"
        "torch.set_num_threads(2); torch.ones(2**22).sum()"
    )
    said = outcome("return item", before=before)
    assert said.startswith("ProtquantError workers cannot compute, because this process has computed on several")


def test_workers_end_with_their_parent():
    program = PROGRAM.format(body="print('in', flush=True); import time; time.sleep(60)", items="[1]", before="")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.kill()
        began = time.monotonic()
        process.stdout.read()  # until the worker, which has the pipe too, has ended
    assert time.monotonic() - began < 30
