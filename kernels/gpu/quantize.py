"""Int8 codes of rows: the kernel, and the part of it that other kernels of rows end in."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int, Int8
from torch import Tensor

from protquant.kernels.gpu.nearest_code import nearest_code
from protquant.kernels.gpu.row_tile import UNFUSED, RowTile, with_unit_columns
from protquant.kernels.reference.quantize import TokenCodes, check_matrix, check_scale

__all__ = [
    "empty_token_codes",
    "positive",
    "quantize_int8",
    "quantize_int8_kernel",
    "quantize_int8_per_token",
    "store_rows",
]


@triton.jit
def positive(steps):
    """Steps, but 1 for nothing but zeros or what float32 flushes to zero."""
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
    C,
    MODE: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
):
    """Quantize whole rows of float32, and store their codes; static scales are read, those of tokens are stored.

    What lies outside of `column_mask` has to be 0, which is in every range.
    """
    if MODE == "static":
        inverse = tl.div_rn(1.0, tl.load(scale_ptr))
        zero = 0
        if zero_ptr is not None:
            zero = tl.load(zero_ptr)
        codes = nearest_code(y, inverse, zero, LOW, HIGH)
    else:
        # Steps in float64, as the simulation has them; there is one a row.
        if MODE == "symmetric":
            steps = positive(tl.max(tl.abs(y), axis=1).to(tl.float64) / 127.0)
            zero = tl.zeros_like(rows).to(tl.int32)
        else:
            lowest = tl.minimum(tl.min(y, axis=1), 0.0).to(tl.float64)
            highest = tl.maximum(tl.max(y, axis=1), 0.0).to(tl.float64)
            steps = positive((highest - lowest) / 255.0)
            # Adding 1.5 * 2^52 rounds float64 to integers, half to even. Less 128: codes are those of int8.
            zero = ((-lowest / steps + 6755399441055744.0) - 6755399441055744.0).to(tl.int32) - 128
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
    M,
    C,
    x_stride,
    MODE: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Some whole rows."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_C)
    row_mask, column_mask = rows < M, columns < C
    mask = row_mask[:, None] & column_mask[None, :]
    x = tl.load(x_ptr + rows[:, None] * x_stride + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    store_rows(x, rows, row_mask, columns, column_mask, scale_ptr, zero_ptr, codes_ptr, C, MODE, LOW, HIGH)


def quantize_int8(
    x: Float[Tensor, "m c"],
    scale: Float[Tensor, " 1"],
    zero: Int[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
) -> Int8[Tensor, "m c"]:
    """As `protquant.kernels.reference.quantize.quantize_int8`, in one kernel; the zero point is below 2^21."""
    check_matrix(x)
    check_scale(scale, zero, low, high)
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    _launch(x, scale, zero, codes, "static", low, high)
    return codes


def quantize_int8_per_token(x: Float[Tensor, "m c"], *, symmetric: bool = True) -> TokenCodes:
    """As `protquant.kernels.reference.quantize.quantize_int8_per_token`, in one kernel."""
    check_matrix(x)
    encoded = empty_token_codes(x, symmetric)
    if symmetric:
        _launch(x, encoded.scales, None, encoded.codes, "symmetric", -127, 127)
    else:
        _launch(x, encoded.scales, encoded.zeros, encoded.codes, "affine", -128, 127)
    return encoded


def empty_token_codes(x: Tensor, symmetric: bool) -> TokenCodes:
    """Room for the codes of `x`; scales and zero points are those of rows of no channels."""
    scales = torch.ones(len(x), dtype=torch.float32, device=x.device)
    zeros = None if symmetric else torch.full((len(x),), -128, dtype=torch.int32, device=x.device)
    return TokenCodes(torch.empty(x.shape, dtype=torch.int8, device=x.device), scales, zeros)


def _launch(x: Tensor, scale: Tensor, zero: Tensor | None, codes: Tensor, mode: str, low: int, high: int) -> None:
    if x.numel() == 0:
        return
    m, c = x.shape
    x = with_unit_columns(x)
    tile = RowTile.of(c)
    quantize_int8_kernel[(triton.cdiv(m, tile.block_m),)](
        x,
        scale,
        zero,
        codes,
        m,
        c,
        x.stride(0),
        MODE=mode,
        LOW=low,
        HIGH=high,
        BLOCK_M=tile.block_m,
        BLOCK_C=tile.block_c,
        num_warps=tile.num_warps,
        **UNFUSED,
    )
