"""Int8 codes of rows: the kernel, and the part of it that other kernels of rows end in."""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.quantize import TokenCodes, check_bits, check_matrix, check_scale
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.row_tile import UNFUSED, RowTile, with_unit_columns
from protquant.kernels.triton.tiles import blocks_of

__all__ = [
    "LaunchTokens",
    "encode_tokens",
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
    below_zero_ptr,
    C,
    MODE: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
):
    """Quantize whole rows of float32, and store their codes; static scales are read, those of tokens are stored.

    What lies outside of `column_mask` has to be 0, which is in every range. Symmetric codes leave 1 at
    `below_zero_ptr`, if it is not None, where a value is negative.
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
            steps = positive(tl.max(tl.abs(y), axis=1).to(tl.float64) / (HIGH * 1.0))
            if below_zero_ptr is not None:
                lowest = tl.min(tl.where(row_mask, tl.min(y, axis=1), 0.0), axis=0)
                tl.store(below_zero_ptr, 1, mask=lowest < 0.0)
            zero = tl.zeros_like(rows).to(tl.int32)
        else:
            lowest = tl.minimum(tl.min(y, axis=1), 0.0).to(tl.float64)
            highest = tl.maximum(tl.max(y, axis=1), 0.0).to(tl.float64)
            steps = positive((highest - lowest) / ((HIGH - LOW) * 1.0))
            # Adding 1.5 * 2^52 rounds float64 to integers, half to even.
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
    """Some whole rows; affine ones are left as they are where there is a 1 at `below_zero_ptr`."""
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


def quantize_int8(
    x: Float[Tensor, "m c"],
    scale: Float[Tensor, " 1"],
    zero: Integer[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
) -> Int8[Tensor, "m c"]:
    """As `protquant.kernels.reference.quantize.quantize_int8`, in one kernel; the zero point is below 2^21."""
    check_matrix(x)
    check_scale(scale, zero, low, high)
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    _launch(x, scale, zero, codes, None, "static", low, high)
    return codes


def quantize_int8_per_token(
    x: Float[Tensor, "m c"], *, symmetric: bool = True, bits: int = 8, unsigned: bool = False
) -> TokenCodes:
    """As `protquant.kernels.reference.quantize.quantize_int8_per_token`, in one kernel.

    With `unsigned` a second one runs, which finds out on the device that it has nothing to do: nobody waits to know.
    """
    check_matrix(x)

    def launch(encoded: TokenCodes, below_zero: Tensor | None, mode: str, low: int, high: int) -> None:
        _launch(x, encoded.scales, encoded.zeros, encoded.codes, below_zero, mode, low, high)

    return encode_tokens(x, launch, symmetric=symmetric, bits=bits, unsigned=unsigned)


LaunchTokens = Callable[[TokenCodes, Tensor | None, str, int, int], None]
"""Runs a kernel that ends in `store_rows`, on room for codes, `below_zero`, mode, smallest and largest code."""


def encode_tokens(x: Tensor, launch: LaunchTokens, *, symmetric: bool, bits: int, unsigned: bool) -> TokenCodes:
    """Codes of rows of the shape of `x` that `launch` makes; where rows are empty, it has nothing to do.

    Raises
    ------
    ValueError
        For a number of bits that does not fit.
    """
    check_bits(bits)
    low = -128 if bits == 8 else 0
    affine = "affine", low, low + 2**bits - 1
    # Scales and zero points of rows of no channels.
    scales = torch.ones(len(x), dtype=torch.float32, device=x.device)
    zeros = None
    if unsigned or not symmetric:
        zero = low if not symmetric or x.numel() == 0 else 0
        zeros = torch.full((len(x),), zero, dtype=torch.int32, device=x.device)
    encoded = TokenCodes(torch.empty(x.shape, dtype=torch.int8, device=x.device), scales, zeros)
    if x.numel() == 0:
        return encoded
    if not symmetric:
        launch(encoded, None, *affine)
        return encoded
    most = 2 ** (bits - 1) - 1
    below_zero = torch.zeros(1, dtype=torch.int32, device=x.device) if unsigned else None
    launch(encoded._replace(zeros=None), below_zero, "symmetric", -most, most)
    if unsigned:
        launch(encoded, below_zero, *affine)
    return encoded


def _launch(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    codes: Tensor,
    below_zero: Tensor | None,
    mode: str,
    low: int,
    high: int,
) -> None:
    if x.numel() == 0:
        return
    m, c = x.shape
    x = with_unit_columns(x)
    tile = RowTile.of(c)
    quantize_int8_kernel[(blocks_of(m, tile.block_m),)](
        x,
        scale,
        zero,
        codes,
        below_zero,
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
