"""Memory of this process and of the machine."""

import re
from pathlib import Path

import psutil
import torch

from protquant.running.memory.control_group import free_in_groups

__all__ = ["available_bytes", "is_out_of_memory", "resident_bytes", "resident_bytes_of_files"]

_CPU_ALLOCATION_FAILED = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes, within the limits of control groups (as in containers)."""
    if device.type == "cuda":
        # Memory that torch has reserved for later tensors is free too.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    free, of_groups = int(psutil.virtual_memory().available), free_in_groups()
    return free if of_groups is None else min(free, of_groups)


def resident_bytes(device: torch.device) -> int:
    """Return the bytes that this process takes: resident main memory, or torch's tensors on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def resident_bytes_of_files(folder: Path, suffix: str) -> int:
    """Return the resident bytes of a folder's mapped files with a suffix; 0 if the system does not report them."""
    try:
        maps = psutil.Process().memory_maps(grouped=True)
    except (psutil.Error, OSError, AttributeError):  # psutil lacks this function on macOS
        return 0
    return sum(entry.rss for entry in maps if entry.path.endswith(suffix) and folder == Path(entry.path).parent)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory, on a GPU, in torch on the CPU, or in numpy."""
    # torch has its own error type only for GPUs; on the CPU, only the allocator's message (by system) identifies it.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATION_FAILED.search(str(error)) is not None
    )
