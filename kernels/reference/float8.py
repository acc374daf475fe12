"""Eight-bit floating point, scaled: torch's own casts, saturating (Micikevicius et al. 2022)."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["decode_float8", "encode_float8"]


def encode_float8(x: Float[Tensor, "..."], scale: Float[Tensor, "..."], dtype: torch.dtype) -> UInt8[Tensor, "..."]:
    """Bytes of `x / scale` as `dtype`, `torch.float8_e4m3fn` or `torch.float8_e5m2`; too large goes to the largest.

    `scale` is positive and broadcasts against `x`, whose values are finite or infinite: the cast by itself may make
    infinities or NaN of what it cannot hold.
    """
    largest = torch.finfo(dtype).max
    scaled = (x.float() * scale.reciprocal()).clamp(-largest, largest)
    return scaled.to(dtype).view(torch.uint8)


def decode_float8(codes: UInt8[Tensor, "..."], scale: Float[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Values of `codes`, float32."""
    return codes.view(dtype).float() * scale
