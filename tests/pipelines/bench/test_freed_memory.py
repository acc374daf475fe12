"""Contenders find memory as they would in a process of their own, or all of them find it kept."""

import os
import sys

import pytest
import torch

from protquant.pipelines.bench import freed_memory
from protquant.pipelines.bench.freed_memory import FreedMemory
from protquant.pipelines.bench.setting import computing_with

MIB = 2**20
glibc = pytest.mark.skipif(
    freed_memory._mallopt() is None, reason="only glibc is told what to do with memory that is freed"
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


@glibc
def test_large_tensors_get_new_pages_each_time_however_many_holes_were_left():
    with FreedMemory() as freed:
        holes = [torch.ones(20 * MIB // 4) for _ in range(20)]
        kept = holes[::4]  # neither side by side nor at the end of the heap: a heap could not give them back
        del holes
        freed.settle()
        assert pages_got_at_last(64) > 60 * MIB // 4096
    assert len(kept) == 5


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


def test_it_says_what_is_done(monkeypatch):
    with computing_with(None) as freed:
        assert str(freed) in ("given back above 32 MiB, as glibc does by default", other())
    with computing_with(None, keep_memory=True) as freed:
        assert str(freed) in ("kept", other())
    monkeypatch.setitem(os.environ, "LD_PRELOAD", "libjemalloc.so.2")
    with computing_with(None, keep_memory=True) as freed:
        assert str(freed) == other()
        freed.settle()  # and does nothing


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with FreedMemory(keep=True) as freed:
        freed.settle()
        assert str(freed) == other()


def other() -> str:
    return "as the C library does, which is not glibc"
