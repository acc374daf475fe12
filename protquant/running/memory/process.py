"""Memory of this process and of its machine."""

import re
from pathlib import Path

import psutil
import torch

from protquant.running.memory.control_group import free_in_groups

__all__ = ["available_bytes", "is_out_of_memory", "resident_bytes", "resident_bytes_of_files"]

_CPU_ALLOCATION_FAILED = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a device; of main memory, what control groups such as a container's leave of it."""
    if device.type == "cuda":
        # What torch keeps for tensors to come is free too.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free, of_groups = int(psutil.virtual_memory().available), free_in_groups()
    return free if of_groups is None else min(free, of_groups)


def resident_bytes(device: torch.device) -> int:
    """Return what this process takes on a device now: of main memory all that is resident, of a GPU torch's tensors."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def resident_bytes_of_files(folder: Path, suffix: str) -> int:
    """Return how much of a folder's files whose names end so is mapped and in memory; 0 where no system tells."""
    try:
        maps = psutil.Process().memory_maps(grouped=True)
    except (psutil.Error, OSError, AttributeError):  # There is no such function on macOS.
        return 0
    return sum(each.rss for each in maps if each.path.endswith(suffix) and folder == Path(each.path).parent)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: that of a GPU, of torch on the CPU, or of numpy."""
    # torch has a type of its own for GPUs only; on the CPU its allocator's words must do (they differ by system).
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATION_FAILED.search(str(error)) is not None
    )
