"""Peak memory of a call, in addition to the memory before it, so that weights and inputs do not count."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from protquant.quant.memory import release_freed

__all__ = ["PeakMemory", "peak_memory"]

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # command of the Linux kernel: proc(5), clear_refs


@dataclass(frozen=True)
class PeakMemory:
    """A measurement of peak memory, or the reason why there is none.

    Attributes
    ----------
    bytes : int or None
        Increase over the memory before the call; None if it could not be measured.
    note : str
        Method of the measurement, or the reason why it was not possible.
    """

    bytes: int | None
    note: str


def peak_memory(run: Callable[[], Any], device: torch.device | str = "cpu", process: Path = _PROCESS) -> PeakMemory:
    """Call `run`, and return the increase of memory over the state before.

    On a GPU, the memory is that of torch's allocator. On the CPU, it is the resident memory of this process as counted
    by the Linux kernel, in pages of 4 KiB, other threads included. The C library first returns its free memory, because
    the call could otherwise reuse it unnoticed.

    Parameters
    ----------
    run : callable
        Function that is called once. Call it before, so that one-time buffers exist already.
    process : Path
        Folder of this process in `/proc`.
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
