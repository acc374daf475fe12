"""A fine middle with coarse tails in one byte per element, and sums that are kept so.

The pieces are laid end to end, so that a byte counts levels from the lowest up and is monotone in the value::

    left tail, its code tail_high to its code 1 | middle, code low to code high | right tail, 1 to tail_high
    byte 0                                        byte tail_high                                byte levels - 1

Code 0 of a tail is the middle's end, which has a byte already: a tail takes `tail_high` bytes, an absent tail none. A
middle of 7 bits with tails of 6 is 63 + 128 + 63 = 254 levels; what the tails or a shorter middle do not use is left
free above the last level, and no byte there is ever made.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from protquant.kernels.reference.piecewise import (
    LEFT,
    MIDDLE,
    RIGHT,
    PiecewiseCodes,
    Tails,
    decode_tailed,
    encode_tailed,
)

__all__ = ["ByteGrid", "check_residual_add", "decode_tailed_bytes", "encode_tailed_bytes", "residual_add_encode"]

# Kernels round by adding and taking away 1.5 * 2^23, which leaves so many steps on either side of 0.
_MOST_STEPS = 2**22


@dataclass(frozen=True)
class ByteGrid:
    """Steps and codes of the pieces, plain numbers in the order of `protquant.quant.formats.TailedGrid`.

    Attributes
    ----------
    scale, zero_point, low, high
        Of the middle: its step, the code of 0, and the smallest and the largest code.
    left_scale, right_scale
        Steps of the tails, 0 for no tail.
    tail_high
        The largest code of a tail; the smallest is 0, at the middle's end.

    Raises
    ------
    ValueError
        For steps that are no steps, a middle without codes or too far from 0, or more levels than a byte holds.
    """

    scale: float
    zero_point: int
    low: int
    high: int
    left_scale: float
    right_scale: float
    tail_high: int

    def __post_init__(self) -> None:
        if not self.scale > 0 or self.left_scale < 0 or self.right_scale < 0:
            raise ValueError(
                f"steps of {self.scale} in the middle, {self.left_scale} and {self.right_scale} in the tails: "
                "the first must be positive, the others positive or, for no tail, 0"
            )
        if self.low > self.high or self.tail_high < 0:
            raise ValueError(f"codes {self.low} to {self.high}, and 0 to {self.tail_high} in tails, are none")
        if max(abs(self.low - self.zero_point), abs(self.high - self.zero_point)) >= _MOST_STEPS:
            raise ValueError(f"the middle is {_MOST_STEPS} steps or more away from 0: float32 does not count so far")
        if self.levels > 256:
            raise ValueError(
                f"{self.left_codes} codes of a left tail, {self.high - self.low + 1} of the middle and "
                f"{self.right_codes} of a right tail are {self.levels} levels, more than the 256 of a byte"
            )

    @property
    def left_codes(self) -> int:
        """Bytes of the left tail, and so the byte of the middle's lower end."""
        return self.tail_high if self.left_scale else 0

    @property
    def right_codes(self) -> int:
        """Bytes of the right tail."""
        return self.tail_high if self.right_scale else 0

    @property
    def levels(self) -> int:
        """Bytes that are used: 0 to this less one."""
        return self.left_codes + self.high - self.low + 1 + self.right_codes

    def pieces(self, device: torch.device) -> tuple[Tensor, Tensor, int, int, Tails]:
        """What `encode_tailed` and `decode_tailed` take."""
        left, right = (
            torch.tensor(step, dtype=torch.float32, device=device) if step else None
            for step in (self.left_scale, self.right_scale)
        )
        scale = torch.tensor(self.scale, dtype=torch.float32, device=device)
        zero_point = torch.tensor(self.zero_point, dtype=torch.int32, device=device)
        return scale, zero_point, self.low, self.high, Tails(left, right, self.tail_high)


def encode_tailed_bytes(x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
    """Bytes of the levels nearest to `x`, finite; what lies outside goes to the nearest end."""
    codes, regions = encode_tailed(x, *grid.pieces(x.device))
    codes = codes.int()
    top = grid.left_codes + grid.high - grid.low
    levels = codes - grid.low + grid.left_codes
    levels = torch.where(regions == LEFT, grid.left_codes - codes, levels)
    levels = torch.where(regions == RIGHT, top + codes, levels)
    return levels.to(torch.uint8)


def decode_tailed_bytes(
    codes: UInt8[Tensor, "..."], grid: ByteGrid, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "..."]:
    """Values of bytes that `encode_tailed_bytes` made: those of `decode_tailed` to the bit, rounded to `dtype`."""
    levels = codes.int() - grid.left_codes
    width = grid.high - grid.low
    regions = torch.where(levels < 0, LEFT, torch.where(levels > width, RIGHT, MIDDLE))
    tailed = torch.where(regions == LEFT, -levels, levels + grid.low)
    tailed = torch.where(regions == RIGHT, levels - width, tailed)
    return decode_tailed(PiecewiseCodes(tailed, regions.to(torch.uint8)), *grid.pieces(codes.device)).to(dtype)


def residual_add_encode(
    residual: UInt8[Tensor, "..."] | Float[Tensor, "..."],
    update: Float[Tensor, "..."],
    grid: ByteGrid,
    *,
    residual_grid: ByteGrid | None = None,
    out: UInt8[Tensor, "..."] | None = None,
) -> UInt8[Tensor, "..."]:
    """Bytes of `residual + update`, summed in float32.

    Parameters
    ----------
    residual : Tensor
        Bytes, or floats.
    update : Tensor of float, shape as of residual
    grid : ByteGrid
        Of the sum.
    residual_grid : ByteGrid, optional
        Of the bytes of the residual; that of the sum where it is not given.
    out : Tensor of uint8, shape as of residual, optional
        Where the sum goes; may be the residual itself.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not fit.
    """
    check_residual_add(residual, update, residual_grid, out)
    if residual.dtype == torch.uint8:
        residual = decode_tailed_bytes(residual, residual_grid or grid)
    codes = encode_tailed_bytes(residual.float() + update.float(), grid)
    return codes if out is None else out.copy_(codes)


def check_residual_add(residual: Tensor, update: Tensor, residual_grid: ByteGrid | None, out: Tensor | None) -> None:
    """Raise ValueError where the operands of `residual_add_encode` do not fit together."""
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
