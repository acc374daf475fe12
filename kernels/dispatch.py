"""Choose a backend by name or by device; no other one takes its place silently."""

import importlib.util
import os
from functools import cache

import torch

from protquant.kernels.backend import Backend
from protquant.kernels.backend_names import BACKENDS, BackendName
from protquant.kernels.cpu import CPUBackend
from protquant.kernels.probe import check_backend
from protquant.kernels.reference.backend import ReferenceBackend

__all__ = ["BACKENDS", "BackendName", "choose_backend"]


def choose_backend(name: str, device: torch.device) -> Backend:
    """Return the backend of a name; `auto` is `cpu` on a CPU and `triton` on a GPU.

    The first time a process uses a backend on a device, its operations are compared with the reference.

    Raises
    ------
    ValueError
        If the name is not known, or the backend does not run on the device or computes wrong results there.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r} is none of {', '.join(BACKENDS)}")
    if name == "auto":
        name = "cpu" if device.type == "cpu" else "triton"
    if name == "reference":
        return ReferenceBackend()
    if name == "cpu":
        if device.type != "cpu":
            raise ValueError(f"backend cpu does not run on {device}; choose triton or reference")
        return _checked(CPUBackend, device)
    if importlib.util.find_spec("triton") is None:
        raise ValueError("backend triton needs the package triton: pip install triton; reference and cpu do not")
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET", "0") in ("", "0"):
        raise ValueError("backend triton runs on GPUs; on a CPU only interpreted, with TRITON_INTERPRET=1")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"backend triton runs on GPUs of NVIDIA and AMD, not on {device}; choose reference")
    from protquant.kernels.triton.backend import TritonBackend  # noqa: PLC0415 (triton is optional)

    return _checked(TritonBackend, device)


def _checked(make: type[Backend], device: torch.device) -> Backend:
    _check_once(make, device)
    return make()


@cache
def _check_once(make: type[Backend], device: torch.device) -> None:
    check_backend(make(), device)
