"""The device and number type to compute on, from what a user asks for."""

import torch

from protquant.errors import ProtquantError

__all__ = ["parse_dtype", "pick_device"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
