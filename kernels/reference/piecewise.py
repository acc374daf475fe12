"""Piecewise linear quantization: two resolutions in one tensor (Fang et al. 2020).

Two layouts of pieces cover all variants:

*Tailed*: a fine middle and a coarse tail on either side; each tail begins where the middle ends::

    left tail        middle         right tail
    |    |    |    ||||||||||||    |    |    |

*Two scales*: a fine grid for values nearer to 0 than the breakpoint, and a coarse grid that spans everything
for the rest. The grids overlap, so the mapping is neither monotone nor idempotent at the breakpoint.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from protquant.kernels.reference.uniform import code_dtype, decode_uniform, encode_uniform

__all__ = ["PiecewiseCodes", "Tails", "decode_tailed", "decode_two_scale", "encode_tailed", "encode_two_scale"]

MIDDLE, LEFT, RIGHT = 0, 1, 2
INNER, OUTER = 0, 1


class PiecewiseCodes(NamedTuple):
    """The code of each element, and the piece that the code belongs to.

    A packed element of a tailed grid has b + 1 bits: one region bit, then the middle's b bits, or the tail's side and
    b - 1 bits. A packed element with two scales has one region bit and b bits.
    """

    codes: Integer[Tensor, "..."]
    regions: UInt8[Tensor, "..."]


class Tails(NamedTuple):
    """Grids of the two tails: their steps (None for no tail), and their largest code; the smallest code is 0."""

    left_scale: Float[Tensor, ""] | None
    right_scale: Float[Tensor, ""] | None
    high: int


def _ends(scale: Tensor, zero_point: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    return (low - zero_point) * scale, (high - zero_point) * scale


def encode_tailed(
    x: Float[Tensor, "..."],
    scale: Float[Tensor, ""],
    zero_point: Integer[Tensor, ""],
    low: int,
    high: int,
    tails: Tails,
) -> PiecewiseCodes:
    """Return codes of `x` in a middle with codes `low` to `high`, and in tails that count outward from its ends."""
    x = x.float()
    bottom, top = _ends(scale, zero_point, low, high)
    codes = encode_uniform(x, scale, zero_point, low, high).int()
    regions = torch.full_like(codes, MIDDLE)
    if tails.left_scale is not None:
        left = encode_uniform(bottom - x, tails.left_scale, None, 0, tails.high).int()
        codes, regions = torch.where(x < bottom, left, codes), torch.where(x < bottom, LEFT, regions)
    if tails.right_scale is not None:
        right = encode_uniform(x - top, tails.right_scale, None, 0, tails.high).int()
        codes, regions = torch.where(x > top, right, codes), torch.where(x > top, RIGHT, regions)
    return PiecewiseCodes(codes.to(code_dtype(min(low, 0), max(high, tails.high))), regions.to(torch.uint8))


def decode_tailed(
    encoded: PiecewiseCodes,
    scale: Float[Tensor, ""],
    zero_point: Integer[Tensor, ""],
    low: int,
    high: int,
    tails: Tails,
) -> Float[Tensor, "..."]:
    """Return the float32 values of `encoded`."""
    codes, regions = encoded
    bottom, top = _ends(scale, zero_point, low, high)
    values = decode_uniform(codes, scale, zero_point)
    if tails.left_scale is not None:
        values = torch.where(regions == LEFT, bottom - decode_uniform(codes, tails.left_scale, None), values)
    if tails.right_scale is not None:
        values = torch.where(regions == RIGHT, top + decode_uniform(codes, tails.right_scale, None), values)
    return values


def encode_two_scale(
    x: Float[Tensor, "..."],
    inner_scale: Float[Tensor, ""],
    outer_scale: Float[Tensor, ""],
    breakpoint: Float[Tensor, ""],
    low: int,
    high: int,
) -> PiecewiseCodes:
    """Return codes of `x`, in steps of `inner_scale` where `|x| < breakpoint` and of `outer_scale` elsewhere."""
    x = x.float()
    regions = torch.where(x.abs() < breakpoint, INNER, OUTER)
    inner = encode_uniform(x, inner_scale, None, low, high)
    outer = encode_uniform(x, outer_scale, None, low, high)
    return PiecewiseCodes(torch.where(regions == INNER, inner, outer), regions.to(torch.uint8))


def decode_two_scale(
    encoded: PiecewiseCodes, inner_scale: Float[Tensor, ""], outer_scale: Float[Tensor, ""]
) -> Float[Tensor, "..."]:
    """Return the float32 values of `encoded`."""
    codes, regions = encoded
    inner, outer = decode_uniform(codes, inner_scale, None), decode_uniform(codes, outer_scale, None)
    return torch.where(regions == INNER, inner, outer)
