"""The peak of memory that a call takes, on top of what is there before it: weights and inputs do not count."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from protquant.quant.memory import release_freed

__all__ = ["PeakMemory", "peak_memory"]

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # what the kernel takes for it: proc(5), clear_refs


@dataclass(frozen=True)
class PeakMemory:
    """Bytes, or why there are none.

    Attributes
    ----------
    bytes : int or None
        Rise above the state before the call.
    note : str
        How it was measured, or why it could not be.
    """

    bytes: int | None
    note: str


def peak_memory(run: Callable[[], Any], device: torch.device | str = "cpu", process: Path = _PROCESS) -> PeakMemory:
    """Call `run`, and say how far memory rose above what was in use before.

    On a GPU that is what torch's allocator handed out. On the CPU it is the resident memory of this process, as the
    kernel of Linux counts it (in pages of 4 KiB, with whatever other threads do meanwhile); the C library is told first
    to give back what is free, so that it does not hide what the call takes.

    Parameters
    ----------
    run : callable
        Called once; call it before, so that buffers it makes only once are there.
    process : Path
        Where the kernel tells of this process.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return PeakMemory(torch.cuda.max_memory_allocated(device) - before, "allocated by torch on the GPU")
    if device.type != "cpu":
        run()
        return PeakMemory(None, f"not measured on {device.type}")
    release_freed()
    try:
        (process / "clear_refs").write_text(_RESET_PEAK)
        before = _kibibytes(process, "VmRSS")
    except (OSError, ValueError) as error:
        run()
        return PeakMemory(None, f"not measured: the peak cannot be reset here ({type(error).__name__}; needs Linux)")
    run()
    return PeakMemory(max(0, _kibibytes(process, "VmHWM") - before) * 1024, "rise of the peak of resident memory")


def _kibibytes(process: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", (process / "status").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{process / 'status'} has no {field}")
    return int(found[1])
