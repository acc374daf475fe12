"""The peak is that of the call, whatever was there before and whatever is left after."""

import sys
from pathlib import Path

import pytest
import torch

from protquant.running import peak_memory

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak, and lets it reset it")


def allocate(mebibytes: int) -> int:
    return len(bytearray(b"x") * (mebibytes * MIB))


@linux
def test_a_peak_is_what_the_call_takes():
    allocate(1)
    for mebibytes in (200, 50, 120):  # a larger one before must not hide a smaller one after
        found = peak_memory(lambda size=mebibytes: allocate(size)).bytes
        assert mebibytes - 2 <= found / MIB <= mebibytes + 20


@linux
def test_tensors_count_as_long_as_they_live():
    def two_at_a_time() -> None:
        x = torch.ones(10 * MIB)  # 40 MiB
        for _ in range(5):
            x = x + 1

    found = peak_memory(two_at_a_time).bytes
    assert 78 <= found / MIB <= 200  # if none of the six died it would be 240; each may lie beside the last


@linux
def test_what_was_there_before_does_not_count():
    x = torch.ones(25 * MIB)
    assert peak_memory(x.sum).bytes < 20 * MIB


def test_where_the_peak_cannot_be_reset_there_is_none_and_the_reason(tmp_path: Path):
    ran = []
    found = peak_memory(lambda: ran.append(1), process=tmp_path / "nowhere")
    assert (found.bytes, ran) == (None, [1])
    assert found.note == "not measured: the peak cannot be reset here (FileNotFoundError; needs Linux)"
