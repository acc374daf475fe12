"""Contenders find memory as they would in a process of their own, or all of them find it kept."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from protquant.pipelines.bench.freed_memory import FreedMemory
from protquant.pipelines.bench.setting import computing_with

MIB = 2**20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.machine() != "x86_64" or "LD_PRELOAD" in os.environ,
    reason="only glibc is told what to do with memory that is freed",
)
small_pages = pytest.mark.skipif(
    HUGE_PAGES.is_file() and "[always]" in HUGE_PAGES.read_text(), reason="huge pages are few, however much is got"
)


def pages_got(mebibytes: int) -> int:
    """Of 4 KiB, while a tensor is made and freed."""
    import resource  # noqa: PLC0415 (not on Windows)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(mebibytes * MIB // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def pages_got_at_last(mebibytes: int) -> int:
    """Where a tensor fits into what the last one left does not show at once: it begins at a multiple of 64 bytes."""
    return [pages_got(mebibytes) for _ in range(8)][-1]


IN_A_PROCESS_OF_ITS_OWN = """
import resource, torch
from protquant.pipelines.bench.freed_memory import FreedMemory

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


@glibc
def test_kept_memory_is_used_again():
    with FreedMemory(keep=True) as freed:
        freed.settle()
        assert pages_got_at_last(64) < 100


@glibc
def test_small_tensors_are_kept_by_default_too():
    with FreedMemory() as freed:
        freed.settle()
        assert pages_got_at_last(10) < 100


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
