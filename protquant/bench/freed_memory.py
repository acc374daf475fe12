"""What the C library does with memory that is freed, which decides how long large tensors take.

glibc gives blocks above 32 MiB back to the system when they are freed, and pages that are got anew are filled with
zeros: a fifth of the time of transformers' ESM-2 on two cores, half of that of its trunk. But where there are holes in
the heap, left by who knows what was made and freed before, it takes memory from there, and keeps it. So a float model
is faster next to one that has just been quantized, and how fast it is depends on what else is compared. Here nothing
leaves holes, and contenders find what they would in a process of their own.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Self

__all__ = ["FreedMemory"]

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_SMALL, _LARGE, _MANY = 2**17, 2**25, 2**16
"""Smallest and largest threshold that glibc chooses by itself, and how many blocks it maps at most."""
_KEEP = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""What tells the same to processes that are started meanwhile."""


class FreedMemory:
    """How it is dealt with, for as long as this is entered; nothing is done where the C library is not glibc.

    To be entered before the first tensor is made. What the environment says of malloc does not count: thresholds are
    set anew, and left where a process of large tensors has them by itself.

    Parameters
    ----------
    keep : bool
        Whether freed memory is kept, as with `MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` of 4294967296 in
        the environment, or given back as glibc does by default.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self._set = _mallopt()
        self._environment: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        self._environment = {name: os.environ.get(name) for name in _KEEP}
        _set_environment(_KEEP if self.keep else dict.fromkeys(_KEEP))
        self.leave_no_holes()
        return self

    def __exit__(self, *error: object) -> None:
        _set_environment(self._environment)
        self._give_back()

    def leave_no_holes(self) -> None:
        """From now on, tensors lie on pages of their own, which are given back whole."""
        self._choose({_MMAP_MAX: _MANY, _MMAP_THRESHOLD: _SMALL})

    def settle(self) -> None:
        """From now on, free as it is said of contenders."""
        if self.keep:
            self._choose({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})
        else:
            self._give_back()

    def __str__(self) -> str:
        if self._set is None:
            return "as it comes: glibc's malloc is not there, or not what tensors are allocated by"
        return "kept" if self.keep else "given back above 32 MiB, as glibc does by default"

    def _give_back(self) -> None:
        self._choose({_MMAP_MAX: _MANY, _MMAP_THRESHOLD: _LARGE, _TRIM_THRESHOLD: 2 * _LARGE})

    def _choose(self, options: Mapping[int, int]) -> None:
        if self._set is not None:
            for option, value in options.items():
                self._set(option, value)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _mallopt() -> Callable[[int, int], int] | None:
    """Of glibc; None where something else may be what torch gets memory from, as mimalloc is on 64-bit Arm."""
    if sys.platform != "linux" or os.environ.get("LD_PRELOAD") or platform.machine() in ("aarch64", "arm64"):
        return None
    library = ctypes.CDLL(None)
    return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
