"""Tokens with outliers: the kernel finds and removes the largest magnitudes of a row, and packs the rest."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.reference.token_outlier import outlier_index_dtype
from protquant.kernels.reference.token_outlier_rows import OutlierRows, check_token_outlier
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.operands import with_unit_columns
from protquant.kernels.triton.row_tile import UNFUSED, RowTile
from protquant.kernels.triton.tiles import blocks_of

__all__ = ["TILE_ELEMENTS", "inliers_at", "outliers_before", "quantize_token_outlier", "quantize_token_outlier_kernel"]


# Threads also hold the magnitudes and the moves of the elements, so half as many elements fit.
TILE_ELEMENTS = 2048


@triton.jit
def inliers_at(x_ptrs, positions, shift, row_mask, inliers, inverse, LARGEST: tl.constexpr):
    """Return codes of the inliers at `positions` of rows, `shift` channels further right; 0 beyond the last."""
    mask = row_mask[:, None] & (positions < inliers)[None, :]
    # The second read of the row is from the cache.
    x = tl.load(x_ptrs + (positions[None, :] + shift), mask=mask, other=0.0).to(tl.float32)
    return nearest_code(x, inverse, 0, -LARGEST, LARGEST)


@triton.jit
def outliers_before(is_outlier, columns, positions, C, OUTLIERS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Return the number of outliers before the inliers at `positions`, by rows."""
    shift = tl.zeros((BLOCK_M, positions.shape[0]), dtype=tl.int32)
    last = tl.full((BLOCK_M,), -1, dtype=tl.int32)
    for rank in range(OUTLIERS):
        last = tl.min(tl.where(is_outlier & (columns[None, :] > last[:, None]), columns[None, :], C), axis=1)
        # `rank` of the channels before this outlier are outliers too.
        shift += (last[:, None] - rank <= positions[None, :]).to(tl.int32)
    return shift


@triton.jit
def quantize_token_outlier_kernel(
    x_ptr,
    codes_ptr,
    scale_ptr,
    outlier_ptr,
    index_ptr,
    M,
    C,
    x_stride,
    codes_stride,
    OUTLIERS: tl.constexpr,
    BITS: tl.constexpr,
    LARGEST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Process a few whole rows; among equal magnitudes, the first channel is the outlier."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_C)
    row_mask, column_mask = rows < M, columns < C
    x_rows = x_ptr + rows[:, None] * x_stride
    mask = row_mask[:, None] & column_mask[None, :]
    x = tl.load(x_rows + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    # Removed elements sort below every magnitude, and columns beyond the last sort below them.
    magnitudes = tl.where(column_mask[None, :], tl.abs(x), -2.0)
    largest = tl.max(magnitudes, axis=1)
    for _ in range(OUTLIERS):
        taken = tl.argmax(magnitudes, axis=1, tie_break_left=True)
        magnitudes = tl.where(columns[None, :] == taken[:, None], -1.0, magnitudes)
    is_outlier = magnitudes == -1.0

    # If all channels are outliers, this is negative, and the outliers alone determine the step.
    rest = tl.max(magnitudes, axis=1)
    scale = tl.maximum(tl.div_rn(largest, 32000.0), tl.div_rn(rest, LARGEST * 1.0))
    scale = tl.where(scale > 1.1754943508222875e-38, scale, 1.0)
    # Round to bfloat16, half to even, with integers: the interpreter's cast truncates.
    bits = scale.to(tl.int32, bitcast=True)
    bits = ((bits + 32767 + ((bits >> 16) & 1)) >> 16) << 16
    scale = bits.to(tl.float32, bitcast=True)
    tl.store(scale_ptr + rows, scale.to(tl.bfloat16), mask=row_mask)
    inverse = tl.div_rn(1.0, scale)

    last = tl.full((BLOCK_M,), -1, dtype=tl.int32)
    for rank in range(OUTLIERS):
        last = tl.min(tl.where(is_outlier & (columns[None, :] > last[:, None]), columns[None, :], C), axis=1)
        outlier = tl.load(x_ptr + rows * x_stride + last, mask=row_mask, other=0.0).to(tl.float32)
        steps = nearest_code(outlier, inverse, 0, -32767, 32767)
        tl.store(outlier_ptr + rows * OUTLIERS + rank, steps.to(tl.int16), mask=row_mask)
        tl.store(index_ptr + rows * OUTLIERS + rank, last.to(index_ptr.dtype.element_ty), mask=row_mask)

    inliers = C - OUTLIERS
    codes_rows = codes_ptr + rows[:, None] * codes_stride
    if BITS == 8:
        shift = outliers_before(is_outlier, columns, columns, C, OUTLIERS, BLOCK_M)
        codes = inliers_at(x_rows, columns, shift, row_mask, inliers, inverse[:, None], LARGEST)
        stored = row_mask[:, None] & (columns < codes_stride)[None, :]
        tl.store(codes_rows + columns[None, :], codes.to(tl.int8), mask=stored)
    else:
        pairs = tl.arange(0, BLOCK_C // 2)
        shift = outliers_before(is_outlier, columns, 2 * pairs, C, OUTLIERS, BLOCK_M)
        first = inliers_at(x_rows, 2 * pairs, shift, row_mask, inliers, inverse[:, None], LARGEST) + 8
        shift = outliers_before(is_outlier, columns, 2 * pairs + 1, C, OUTLIERS, BLOCK_M)
        second = inliers_at(x_rows, 2 * pairs + 1, shift, row_mask, inliers, inverse[:, None], LARGEST) + 8
        # The last half byte is 0 if the number of inliers is odd.
        second = tl.where((2 * pairs + 1 < inliers)[None, :], second, 0)
        stored = row_mask[:, None] & (pairs < codes_stride)[None, :]
        tl.store(codes_rows + pairs[None, :], (first | (second << 4)).to(tl.uint8), mask=stored)


def quantize_token_outlier(x: Float[Tensor, "m c"], bits: int, outliers: int) -> OutlierRows:
    """Return `protquant.kernels.reference.token_outlier_rows.quantize_token_outlier`, by one kernel.

    Among equal magnitudes, the first channel is the outlier; torch may choose another. Codes, outliers and indices may
    differ then, but not the decoded values.
    """
    check_token_outlier(x, bits, outliers)
    m, c = x.shape
    outliers = min(outliers, c)
    width = c - outliers if bits == 8 else (c - outliers + 1) // 2
    encoded = OutlierRows(
        torch.empty((m, width), dtype=torch.int8 if bits == 8 else torch.uint8, device=x.device),
        torch.ones((m, 1), dtype=torch.bfloat16, device=x.device),
        torch.empty((m, outliers), dtype=torch.int16, device=x.device),
        torch.empty((m, outliers), dtype=outlier_index_dtype(c), device=x.device),
    )
    if x.numel() == 0:
        return encoded
    x = with_unit_columns(x)
    tile = RowTile.of(c, TILE_ELEMENTS)
    quantize_token_outlier_kernel[(blocks_of(m, tile.block_m),)](
        x,
        *encoded,
        m,
        c,
        x.stride(0),
        width,
        OUTLIERS=outliers,
        BITS=bits,
        LARGEST=2 ** (bits - 1) - 1,
        BLOCK_M=tile.block_m,
        BLOCK_C=tile.block_c,
        num_warps=tile.num_warps,
        **UNFUSED,
    )
    return encoded
