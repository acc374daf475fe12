"""The device and number type to compute on, from what a user asks for."""

from typing import get_args

import torch

from protquant.errors import ProtquantError
from protquant.options.choices import DtypeName

__all__ = ["parse_dtype", "pick_device"]

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(DtypeName)}


def pick_device(cpu_only: bool = False) -> torch.device:
    """A CUDA or ROCm GPU if there is one and it is wanted, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu_only else "cpu")


def parse_dtype(name: str) -> torch.dtype:
    """A floating-point type by name.

    Raises
    ------
    ProtquantError
        If it is none of float32, bfloat16, float16.
    """
    if name not in _DTYPES:
        raise ProtquantError(f"unknown dtype {name!r}; choose one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
