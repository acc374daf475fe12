"""Contenders find memory as they would in a process of their own, or all of them find it kept."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from protquant.bench.freed_memory import FreedMemory
from protquant.bench.setting import computing_with

MIB = 2**20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.machine() != "x86_64" or "LD_PRELOAD" in os.environ,
    reason="only glibc is told what to do with memory that is freed",
)
small_pages = pytest.mark.skipif(
    HUGE_PAGES.is_file() and "[always]" in HUGE_PAGES.read_text(), reason="huge pages are few, however much is got"
)


IN_A_PROCESS_OF_ITS_OWN = """
import resource, torch
from protquant.bench.freed_memory import FreedMemory

def pages_got():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with FreedMemory() as freed:
    for _ in range(2):  # contests
        freed.leave_no_holes()
        holes = [torch.ones(5 * 2**20) for _ in range(20)]
        kept = holes[::5]  # neither side by side nor at the end of the heap: a heap could not give them back
        del holes
        freed.settle()
        print(min([pages_got() for _ in range(8)]))
"""


@glibc
@small_pages
def test_large_tensors_get_new_pages_each_time_however_many_holes_were_left():
    """Entered before the first tensor, as it asks for: here others have been made, and left a heap."""
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN], capture_output=True, text=True, check=True)
    assert [int(pages) > 60 * MIB // 4096 for pages in done.stdout.split()] == [True, True]


AGAIN = """
import resource, sys, torch
from protquant.bench.freed_memory import FreedMemory

def pages_got():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(int(sys.argv[1]) * 2**18)  # MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with FreedMemory(keep=sys.argv[2] == "keep") as freed:
    freed.settle()
    # Where a tensor fits into what others left may not show for long: it begins at a multiple of 64 bytes.
    print(min(pages_got() for _ in range(60)))
"""


@glibc
@pytest.mark.parametrize(("mebibytes", "how"), [(64, "keep"), (10, "by default")])
def test_what_is_kept_is_used_again(mebibytes: int, how: str):
    """In a process of its own: other tests leave a heap in which such tensors find a place, or none."""
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(mebibytes), how], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100


@glibc
def test_it_says_what_is_done():
    with computing_with(None) as freed:
        assert str(freed) == "given back above 32 MiB, as glibc does by default"
    with computing_with(None, keep_memory=True) as freed:
        assert str(freed) == "kept"


@pytest.mark.parametrize("keep", [False, True])
def test_processes_that_are_started_meanwhile_do_the_same(keep: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    with FreedMemory(keep):
        assert os.environ.get("MALLOC_TRIM_THRESHOLD_") == ("4294967296" if keep else None)
        assert os.environ.get("MALLOC_MMAP_THRESHOLD_") == ("4294967296" if keep else None)
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "7" and "MALLOC_MMAP_THRESHOLD_" not in os.environ


def preload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so.2")


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")


def on_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.mark.parametrize("another", [preload, elsewhere, on_arm])
def test_another_allocator_is_left_alone(another: Callable[[pytest.MonkeyPatch], None], monkeypatch):
    another(monkeypatch)
    freed = FreedMemory(keep=True)
    assert freed._set is None
    with freed:
        freed.settle()
        assert str(freed) == "as it comes: glibc's malloc is not there, or not what tensors are allocated by"
