"""Uniform quantization: a value becomes the number of its nearest grid point, and back."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

__all__ = ["code_dtype", "decode_uniform", "encode_uniform"]


def code_dtype(low: int, high: int) -> torch.dtype:
    """Return the smallest integer dtype that holds every code from `low` to `high`."""
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32):
        limits = torch.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return dtype
    raise ValueError(f"codes from {low} to {high} need more than 32 bits")


def encode_uniform(
    x: Float[Tensor, "..."], scale: Float[Tensor, "..."], zero_point: Integer[Tensor, "..."] | None, low: int, high: int
) -> Integer[Tensor, "..."]:
    """Codes of `x` on the grid `(code - zero_point) * scale`; what lies outside goes to the nearest end.

    Parameters
    ----------
    x : Tensor
        Finite values.
    scale : Tensor
        Distance of two grid points, positive; broadcasts against `x`.
    zero_point : Tensor or None
        The code that means 0, broadcasts against `x`; None for 0.
    low, high : int
        The smallest and the largest code.

    Returns
    -------
    Tensor, shape=x.shape
        Of the dtype of `code_dtype(low, high)`.
    """
    # Times the reciprocal, not divided: the fast path does so, and ties must fall the same way.
    codes = torch.mul(x.float(), scale.reciprocal()).round_()
    if zero_point is not None:
        codes = codes + zero_point
    return codes.clamp_(low, high).to(code_dtype(low, high))


def decode_uniform(
    codes: Integer[Tensor, "..."], scale: Float[Tensor, "..."], zero_point: Integer[Tensor, "..."] | None
) -> Float[Tensor, "..."]:
    """Values of `codes`, float32: `(codes - zero_point) * scale`."""
    steps = codes.float()
    if zero_point is not None:
        steps = steps - zero_point
    return steps * scale
