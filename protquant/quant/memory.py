"""Memory that was freed, and what the C library makes of it."""

import ctypes
import os
import platform
import sys

__all__ = ["release_freed", "return_large_tensors"]

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 2**23
"""Tiles of integer execution take half of it. They are made and freed so often that their memory has to be kept."""


def release_freed() -> None:
    """Give what was freed back to the system, where the C library is glibc; does nothing elsewhere.

    glibc keeps it for allocations to come. Where weights are replaced one after the other, these do not fit into the
    holes: a model of 2.4 GiB grew to 4.1 GiB while it was quantized, and to 3.3 GiB with this.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def return_large_tensors() -> None:
    """From now on, let glibc give tensors of 8 MiB and more back to the system when they are freed.

    By itself it raises that size to 32 MiB, and what is freed in between stays in holes: 512 residues on integers took
    300 MiB more than their tensors. It is a setting of the whole process, so that programs choose it and no library
    does; what the environment says of malloc comes first.
    """
    if sys.platform != "linux" or platform.machine() in ("aarch64", "arm64"):
        return
    if any(name == "LD_PRELOAD" or name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
