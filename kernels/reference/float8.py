"""Scaled eight-bit floating point by torch's casts, with saturation (Micikevicius et al. 2022)."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["decode_float8", "encode_float8"]


def encode_float8(x: Float[Tensor, "..."], scale: Float[Tensor, "..."], dtype: torch.dtype) -> UInt8[Tensor, "..."]:
    """Return bytes of `x / scale` as `torch.float8_e4m3fn` or `torch.float8_e5m2`, clamped to the largest value.

    `scale` is positive and broadcasts to `x`, whose values are finite or infinite. Torch's cast alone may make
    infinities or NaN of values that are too large.
    """
    largest = torch.finfo(dtype).max
    scaled = (x.float() * scale.reciprocal()).clamp(-largest, largest)
    return scaled.to(dtype).view(torch.uint8)


def decode_float8(codes: UInt8[Tensor, "..."], scale: Float[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Return the float32 values of `codes`."""
    return codes.view(dtype).float() * scale
