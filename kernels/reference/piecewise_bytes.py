"""A fine middle with coarse tails in one byte per element, and sums that are stored in this format.

The pieces are adjacent: bytes number the levels from the lowest up, so a byte is monotone in the value::

    left tail, its code tail_high to its code 1 | middle, code low to code high | right tail, 1 to tail_high
    byte 0                                        byte tail_high                                byte levels - 1

Code 0 of a tail is the middle's end, which has a byte already, so a tail takes `tail_high` bytes. A middle of 7 bits
with tails of 6 bits has 63 + 128 + 63 = 254 levels. Bytes above the last level are not used.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference.piecewise import (
    LEFT,
    MIDDLE,
    RIGHT,
    PiecewiseCodes,
    Tails,
    decode_tailed,
    encode_tailed,
)

__all__ = ["check_residual_add", "decode_tailed_bytes", "encode_tailed_bytes", "pieces_of", "residual_add_encode"]


def encode_tailed_bytes(x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
    """Return bytes of the levels nearest to `x`, which is finite; values outside of the grid get its nearest end."""
    codes, regions = encode_tailed(x, *pieces_of(grid, x.device))
    codes = codes.int()
    top = grid.left_codes + grid.high - grid.low
    levels = codes - grid.low + grid.left_codes
    levels = torch.where(regions == LEFT, grid.left_codes - codes, levels)
    levels = torch.where(regions == RIGHT, top + codes, levels)
    return levels.to(torch.uint8)


def decode_tailed_bytes(
    codes: UInt8[Tensor, "..."], grid: ByteGrid, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "..."]:
    """Return the values of bytes from `encode_tailed_bytes`: equal to `decode_tailed`, rounded to `dtype`."""
    levels = codes.int() - grid.left_codes
    width = grid.high - grid.low
    regions = torch.where(levels < 0, LEFT, torch.where(levels > width, RIGHT, MIDDLE))
    tailed = torch.where(regions == LEFT, -levels, levels + grid.low)
    tailed = torch.where(regions == RIGHT, levels - width, tailed)
    return decode_tailed(PiecewiseCodes(tailed, regions.to(torch.uint8)), *pieces_of(grid, codes.device)).to(dtype)


def residual_add_encode(
    residual: UInt8[Tensor, "..."] | Float[Tensor, "..."],
    update: Float[Tensor, "..."],
    grid: ByteGrid,
    *,
    residual_grid: ByteGrid | None = None,
    out: UInt8[Tensor, "..."] | None = None,
) -> UInt8[Tensor, "..."]:
    """Return bytes of `residual + update`, summed in float32.

    Parameters
    ----------
    residual : Tensor
        Bytes, or floats.
    update : Tensor of float, shape as of residual
    grid : ByteGrid
        Grid of the sum.
    residual_grid : ByteGrid, optional
        Grid of the residual, if it is bytes; by default `grid`.
    out : Tensor of uint8, shape as of residual, optional
        Memory for the sum; it may be the residual itself.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit.
    """
    check_residual_add(residual, update, residual_grid, out)
    if residual.dtype == torch.uint8:
        residual = decode_tailed_bytes(residual, residual_grid or grid)
    codes = encode_tailed_bytes(residual.float() + update.float(), grid)
    return codes if out is None else out.copy_(codes)


def check_residual_add(residual: Tensor, update: Tensor, residual_grid: ByteGrid | None, out: Tensor | None) -> None:
    """Raise ValueError if the operands of `residual_add_encode` do not fit together."""
    if residual.dtype != torch.uint8 and not residual.is_floating_point():
        raise ValueError(f"a residual is bytes (uint8) or floats, not {residual.dtype}")
    if residual.dtype != torch.uint8 and residual_grid is not None:
        raise ValueError(f"a residual of {residual.dtype} is not on a grid: leave out residual_grid")
    if not update.is_floating_point() or update.shape != residual.shape:
        raise ValueError(
            f"the update must be floats of the residual's shape {tuple(residual.shape)}, "
            f"not {tuple(update.shape)} of {update.dtype}"
        )
    if out is not None and (out.dtype != torch.uint8 or out.shape != residual.shape):
        raise ValueError(f"out must be uint8 of shape {tuple(residual.shape)}, not {tuple(out.shape)} of {out.dtype}")


def pieces_of(grid: ByteGrid, device: torch.device) -> tuple[Tensor, Tensor, int, int, Tails]:
    """Return the arguments of `encode_tailed` and `decode_tailed`: scale, zero point, low, high, tails."""
    left, right = (
        torch.tensor(step, dtype=torch.float32, device=device) if step else None
        for step in (grid.left_scale, grid.right_scale)
    )
    scale = torch.tensor(grid.scale, dtype=torch.float32, device=device)
    zero_point = torch.tensor(grid.zero_point, dtype=torch.int32, device=device)
    return scale, zero_point, grid.low, grid.high, Tails(left, right, grid.tail_high)
