"""What the C library does with memory that is freed, which decides how long large tensors take.

glibc gives blocks above 32 MiB back to the system when they are freed, and pages that are got anew are filled with
zeros: a third of the time of transformers' ESM-2 on two cores, half of that of its trunk. But where there are holes in
the heap, left by who knows what was made and freed before, it takes memory from there, and keeps it. So a float model
is faster next to one that has just been quantized, and how fast it is depends on what else is compared. Here nothing
leaves holes, and contenders find what they would in a process of their own.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Self

__all__ = ["FreedMemory"]

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_SMALL, _LARGE, _MANY = 2**17, 2**25, 2**16
"""Smallest and largest threshold that glibc chooses by itself, and how many blocks it maps at most."""


class FreedMemory:
    """How it is dealt with, for as long as this is entered; does nothing where the C library is not glibc.

    To be entered before the first tensor is made, and told to settle when all that is to be timed is there. It leaves
    thresholds where a process of large tensors has them by itself.

    Parameters
    ----------
    keep : bool
        Whether freed memory is kept, as with `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1` in the environment, or
        given back as glibc does by default.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self._set = _mallopt()

    def __enter__(self) -> Self:
        self._choose({_MMAP_MAX: _MANY, _MMAP_THRESHOLD: _SMALL})  # each tensor on pages of its own
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def settle(self) -> None:
        """From now on, free as it is said of contenders."""
        if self.keep:
            self._choose({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})
        else:
            self._give_back()

    def __str__(self) -> str:
        if self._set is None:
            return "as the C library does, which is not glibc"
        return "kept" if self.keep else "given back above 32 MiB, as glibc does by default"

    def _give_back(self) -> None:
        self._choose({_MMAP_MAX: _MANY, _MMAP_THRESHOLD: _LARGE, _TRIM_THRESHOLD: 2 * _LARGE})

    def _choose(self, options: dict[int, int]) -> None:
        if self._set is not None:
            for option, value in options.items():
                self._set(option, value)


def _mallopt() -> Callable[[int, int], int] | None:
    """Of glibc; None where another allocator may be what torch gets memory from."""
    if sys.platform != "linux" or os.environ.get("LD_PRELOAD"):
        return None
    library = ctypes.CDLL(None)
    return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
