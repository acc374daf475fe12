"""Choice of the device and the floating-point type by the user's options."""

from typing import get_args

import torch

from protquant.errors import ProtquantError
from protquant.options.choices import DtypeName

__all__ = ["parse_dtype", "pick_device"]

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(DtypeName)}


def pick_device(cpu_only: bool = False) -> torch.device:
    """Return a CUDA or ROCm GPU if there is one and `cpu_only` is False; otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu_only else "cpu")


def parse_dtype(name: str) -> torch.dtype:
    """Return a floating-point type by name.

    Raises
    ------
    ProtquantError
        If the name is not float32, bfloat16 or float16.
    """
    if name not in _DTYPES:
        raise ProtquantError(f"unknown dtype {name!r}; choose one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
