"""Release the memory of tensors that are mapped from files, while their values are not needed."""

import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

__all__ = ["forget_pages"]

_MADV_DONTNEED = 4


def forget_pages(tensors: Iterable[Tensor]) -> None:
    """Drop the memory pages of tensors that are mapped from files; the next access reads them from the file.

    Other tensors keep their values. Changes to a private mapping are lost. The function has no effect outside Linux.
    """
    if sys.platform != "linux":
        return
    ranges = _file_ranges()
    advise = ctypes.CDLL(None).madvise
    for tensor in tensors:
        # Only whole pages: the first and the last may be shared with other tensors.
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        # Anonymous memory would become zeros, so check that the range is mapped from a file.
        if last > first and any(start <= first and last <= end for start, end in ranges):
            advise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED)


def _file_ranges() -> list[tuple[int, int]]:
    """Return the address ranges of this process that are mapped from safetensors or torch files."""
    ranges = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, _, _, _, inode, *name = line.split(maxsplit=5)
        if inode != "0" and name and name[0].endswith((".safetensors", ".bin", ".pt")):
            start, end = span.split("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges
