"""Int8 codes of rows: the kernel, and the last part of all kernels that quantize rows."""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid, TokenGrid
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.operands import numbers, on_grid, with_unit_columns
from protquant.kernels.triton.row_tile import UNFUSED, RowTile
from protquant.kernels.triton.tiles import blocks_of

__all__ = ["Launch", "encode", "positive", "quantize_int8", "quantize_int8_kernel", "store_rows"]


@triton.jit
def positive(steps):
    """Return steps, but 1 for a step of 0 or one so small that float32 flushes it to zero."""
    return tl.where(steps > 1.1754943508222875e-38, steps, 1.0)


@triton.jit
def store_rows(
    y,
    rows,
    row_mask,
    columns,
    column_mask,
    scale_ptr,
    zero_ptr,
    codes_ptr,
    below_zero_ptr,
    C,
    MODE: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
):
    """Quantize whole rows of float32, and store their codes. Fixed scales are read; scales of tokens are stored.

    Elements outside of `column_mask` must be 0, which is in every range. If a value of a symmetric grid is negative,
    and `below_zero_ptr` is not None, a 1 is stored there.
    """
    if MODE == "static":
        inverse = tl.div_rn(1.0, tl.load(scale_ptr))
        zero = 0
        if zero_ptr is not None:
            zero = tl.load(zero_ptr)
        codes = nearest_code(y, inverse, zero, LOW, HIGH)
    else:
        # Steps are computed in float64, as in the simulation; each row has one.
        if MODE == "symmetric":
            steps = positive(tl.max(tl.abs(y), axis=1).to(tl.float64) / (HIGH * 1.0))
            if below_zero_ptr is not None:
                lowest = tl.min(tl.where(row_mask, tl.min(y, axis=1), 0.0), axis=0)
                tl.store(below_zero_ptr, 1, mask=lowest < 0.0)
            zero = tl.zeros_like(rows).to(tl.int32)
        else:
            lowest = tl.minimum(tl.min(y, axis=1), 0.0).to(tl.float64)
            highest = tl.maximum(tl.max(y, axis=1), 0.0).to(tl.float64)
            steps = positive((highest - lowest) / ((HIGH - LOW) * 1.0))
            # The addition of 1.5 * 2^52 rounds float64 to integers, half to even.
            zero = ((-lowest / steps + 6755399441055744.0) - 6755399441055744.0).to(tl.int32) + LOW
            tl.store(zero_ptr + rows, zero, mask=row_mask)
        scale = steps.to(tl.float32)
        tl.store(scale_ptr + rows, scale, mask=row_mask)
        codes = nearest_code(y, tl.div_rn(1.0, scale)[:, None], zero[:, None], LOW, HIGH)
    tl.store(
        codes_ptr + rows[:, None] * C + columns[None, :],
        codes.to(tl.int8),
        mask=row_mask[:, None] & column_mask[None, :],
    )


@triton.jit
def quantize_int8_kernel(
    x_ptr,
    scale_ptr,
    zero_ptr,
    codes_ptr,
    below_zero_ptr,
    M,
    C,
    x_stride,
    MODE: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Process a few whole rows; affine rows are not written if `below_zero_ptr` points to a 1."""
    end = M
    if MODE == "affine" and below_zero_ptr is not None:
        end = tl.where(tl.load(below_zero_ptr) != 0, 0, M)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_C)
    row_mask, column_mask = rows < end, columns < C
    mask = row_mask[:, None] & column_mask[None, :]
    x = tl.load(x_ptr + rows[:, None] * x_stride + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    store_rows(
        x, rows, row_mask, columns, column_mask, scale_ptr, zero_ptr, codes_ptr, below_zero_ptr, C, MODE, LOW, HIGH
    )


def quantize_int8(x: Float[Tensor, "m c"], grid: Grid | TokenGrid) -> Codes8:
    """Return `protquant.kernels.reference.quantize.quantize`, by one kernel; a fixed zero point is below 2^21.

    For symmetric rows a second kernel follows. It checks on the device whether no value is negative, and only then
    writes unsigned codes; so the host need not wait.
    """
    (m, c), data = x.shape, with_unit_columns(x)
    tile = RowTile.of(c)

    def launch(
        codes: Tensor, scale: Tensor, zero: Tensor | None, below_zero: Tensor | None, mode: str, low: int, high: int
    ) -> None:
        quantize_int8_kernel[(blocks_of(m, tile.block_m),)](
            data,
            scale,
            zero,
            codes,
            below_zero,
            m,
            c,
            data.stride(0),
            MODE=mode,
            LOW=low,
            HIGH=high,
            BLOCK_M=tile.block_m,
            BLOCK_C=tile.block_c,
            num_warps=tile.num_warps,
            **UNFUSED,
        )

    return encode(x, grid, launch)


Launch = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, str, int, int], None]
"""Runs a kernel that ends in `store_rows`, on codes, scale, zero, `below_zero`, mode, and the limits of the codes."""


def encode(x: Tensor, grid: Grid | TokenGrid, launch: Launch) -> Codes8:
    """Return codes of rows of the shape of `x`, computed by `launch`, which is not called for empty rows."""
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    if isinstance(grid, Grid):
        if x.numel():
            launch(codes, *numbers(grid, x.device), None, "static", grid.signed.low, grid.signed.high)
        return on_grid(codes, grid)
    low = -128 if grid.bits == 8 else 0
    # Initial values: scales and zero points of empty rows, and zero points of symmetric rows.
    scales = torch.ones(len(x), dtype=torch.float32, device=x.device)
    zero = 0 if grid.symmetric and x.numel() else low
    zeros = torch.full((len(x),), zero, dtype=torch.int32, device=x.device)
    if x.numel():
        below_zero = None
        if grid.symmetric:
            below_zero = torch.zeros(1, dtype=torch.int32, device=x.device)
            most = 2 ** (grid.bits - 1) - 1
            launch(codes, scales, None, below_zero, "symmetric", -most, most)
        launch(codes, scales, zeros, below_zero, "affine", low, low + 2**grid.bits - 1)
    return Codes8(codes, scales, zeros)
