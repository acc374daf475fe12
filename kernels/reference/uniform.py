"""Uniform quantization: grids from ranges, codes of the nearest grid points, and their values."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

__all__ = ["affine_grid", "code_dtype", "decode_uniform", "encode_uniform", "positive_scale", "uniform_grid"]


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
    """Return codes of `x` on the grid `(code - zero_point) * scale`; values outside of it get its nearest end.

    Parameters
    ----------
    x : Tensor
        Finite values.
    scale : Tensor
        Positive distance of two grid points; it broadcasts to `x`.
    zero_point : Tensor or None
        The code that means 0; it broadcasts to `x`. None for 0.
    low, high : int
        The smallest and the largest code.

    Returns
    -------
    Tensor, shape=x.shape
        Codes of the type `code_dtype(low, high)`.
    """
    # Multiply by the reciprocal, as the fast kernels do: a division could break ties differently.
    codes = torch.mul(x.float(), scale.reciprocal()).round_()
    if zero_point is not None:
        codes = codes + zero_point
    return codes.clamp_(low, high).to(code_dtype(low, high))


def decode_uniform(
    codes: Integer[Tensor, "..."], scale: Float[Tensor, "..."], zero_point: Integer[Tensor, "..."] | None
) -> Float[Tensor, "..."]:
    """Return the float32 values `(codes - zero_point) * scale`."""
    steps = codes.float()
    if zero_point is not None:
        steps = steps - zero_point
    return steps * scale


def uniform_grid(
    low: Tensor, high: Tensor, bits: int, symmetric: bool, full_range: bool = False
) -> tuple[Tensor, Tensor | None, int, int]:
    """Return scale, zero point, and smallest and largest code of the grid that covers 0 and [low, high].

    Every uniform grid, fixed or computed by a token, follows this rule. Each range has a scale of its own, and all have
    the same codes. If no value is negative, a symmetric grid has no negative codes.

    Parameters
    ----------
    low, high : Tensor
        Smallest and largest values, of one range or of many.
    full_range : bool
        Whether a symmetric grid uses the code -2^(bits - 1) as well.

    Returns
    -------
    tuple of (Tensor of float32, Tensor of int32 or None, int, int)
        Scales and zero points have the shape of `low`; None stands for zero points of 0.
    """
    if not symmetric:
        return *affine_grid(low, high, 2**bits), 0, 2**bits - 1
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    if bool((low >= 0).all()):
        code_low, code_high = 0, 2**bits - 1
        scale = high / code_high
    elif full_range:
        code_low, code_high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = 2 * torch.maximum(-low, high) / (2**bits - 1)
    else:
        code_low, code_high = 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1
        scale = torch.maximum(-low, high) / code_high
    return positive_scale(scale).float(), None, code_low, code_high


def affine_grid(low: Tensor, high: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of the grid of `levels` levels, with codes from 0, that covers 0 and [low, high]."""
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    scale = positive_scale((high - low) / (levels - 1))
    return scale.float(), torch.round(-low / scale).int()


def positive_scale(scale: Tensor) -> Tensor:
    """Return `scale`, but 1 where it is 0 or so small that float32 flushes it to zero: a scale must be positive."""
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, 1.0)
