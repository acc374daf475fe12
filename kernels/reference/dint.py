"""dINT: integers with two special codes for a fraction of a step on either side of 0 (Lee et al. 2023, A.5).

Most values of a weight are near 0, where a coarse grid rounds them to 0. Of 2^b codes the two largest mean minus and
plus `special` steps, by default half a step; the others count full steps, as in an affine grid::

    -3s    -2s     -s  -s/2  0  s/2   s     2s     3s
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from protquant.kernels.reference.uniform import code_dtype

__all__ = ["decode_dint", "dint_levels", "encode_dint"]


def dint_levels(bits: int) -> int:
    """Return the number n of codes that count full steps, 0 to n - 1. Code n means -special, n + 1 means +special."""
    return 2**bits - 2


def encode_dint(
    x: Float[Tensor, "..."],
    scale: Float[Tensor, "..."],
    zero_point: Integer[Tensor, "..."],
    bits: int,
    special: float = 0.5,
) -> Integer[Tensor, "..."]:
    """Return codes of the levels nearest to `x`, 0 to 2^bits - 1; values outside of the grid get its nearest end.

    Parameters
    ----------
    x : Tensor
        Finite values.
    scale, zero_point : Tensor
        The positive step, and the code of 0, from 0 to 2^bits - 3; both broadcast to `x`.
    special : float
        Magnitude of the special levels in steps, between 0 and 1. A value midway between a special level and a
        neighbor gets the one of larger magnitude.
    """
    last = dint_levels(bits) - 1
    # Multiply by the reciprocal, as every other format does.
    steps = x.float() * scale.reciprocal()
    codes = (torch.round(steps) + zero_point).clamp(0, last)
    magnitude, near, far = steps.abs(), special / 2, (1 + special) / 2
    # If 0 is the first or the last full step, a special level is the end of the grid.
    at_end = torch.where(steps < 0, zero_point == 0, zero_point == last)
    is_special = (magnitude >= near) & ((magnitude < far) | at_end)
    codes = torch.where(is_special, torch.where(steps < 0, last + 1, last + 2), codes)
    return codes.to(code_dtype(0, last + 2))


def decode_dint(
    codes: Integer[Tensor, "..."],
    scale: Float[Tensor, "..."],
    zero_point: Integer[Tensor, "..."],
    bits: int,
    special: float = 0.5,
) -> Float[Tensor, "..."]:
    """Return float32 values: `(codes - zero_point) * scale`, or `-special * scale` and `special * scale`."""
    levels = dint_levels(bits)
    steps = codes.float() - zero_point
    steps = torch.where(codes == levels, -special, steps)
    steps = torch.where(codes == levels + 1, special, steps)
    return steps * scale
