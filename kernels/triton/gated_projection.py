"""A projection times the sigmoid of another, quantized in the same kernel."""

import math

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.gated_projection import GatedLayout, check_gated_projection
from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.tiles import MatmulTile, blocks_of, target_of
from protquant.kernels.triton.tiles_triangle import gated_tile
from protquant.kernels.triton.tuned import tuned

__all__ = ["gated_projection", "gated_projection_kernel"]


@triton.jit
def gated_projection_kernel(
    x_ptr,
    x_scale_ptr,
    x_zero_ptr,
    proj_ptr,
    proj_scale_ptr,
    proj_sum_ptr,
    proj_bias_ptr,
    gate_ptr,
    gate_scale_ptr,
    gate_sum_ptr,
    gate_bias_ptr,
    mask_ptr,
    inverse_ptr,
    out_zero_ptr,
    y_ptr,
    M,
    N,
    K,
    x_stride,
    scale_stride,
    inverse_stride,
    line,
    y_line_stride,
    y_row_stride,
    y_column_stride,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of the output; pointers that are None at compile time are left out.

    Where `line` is not None, so many rows lie side by side, and the next so many `y_line_stride` further.
    """
    # All tiles of some rows one after another: the rows are long gone from the cache else, the weights never are.
    program = tl.program_id(0)
    across = tl.cdiv(N, BLOCK_N)
    rows = (program // across).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = (program % across) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask, column_mask = rows < M, columns < N
    long_columns = columns.to(tl.int64)
    channels = tl.arange(0, BLOCK_K)
    projected = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    opening = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for start in range(0, K, BLOCK_K):
        channel_mask = start + channels < K
        x = tl.load(
            x_ptr + rows[:, None] * x_stride + (start + channels)[None, :],
            mask=row_mask[:, None] & channel_mask[None, :],
            other=0,
        )
        weights = long_columns[None, :] * K + (start + channels)[:, None]
        weight_mask = column_mask[None, :] & channel_mask[:, None]
        proj = tl.load(proj_ptr + weights, mask=weight_mask, other=0)
        projected = tl.dot(x, proj, projected, out_dtype=tl.int32)
        gate_weight = tl.load(gate_ptr + weights, mask=weight_mask, other=0)
        opening = tl.dot(x, gate_weight, opening, out_dtype=tl.int32)
    if x_zero_ptr is not None:
        zero = tl.load(x_zero_ptr + rows * scale_stride, mask=row_mask, other=0)
        projected -= zero[:, None] * tl.load(proj_sum_ptr + columns, mask=column_mask, other=0)[None, :]
        opening -= zero[:, None] * tl.load(gate_sum_ptr + columns, mask=column_mask, other=0)[None, :]
    scale = tl.load(x_scale_ptr + rows * scale_stride, mask=row_mask, other=0.0)
    proj_scale = tl.load(proj_scale_ptr + columns, mask=column_mask, other=0.0)
    gate_scale = tl.load(gate_scale_ptr + columns, mask=column_mask, other=0.0)
    y = projected.to(tl.float32) * (scale[:, None] * proj_scale[None, :])
    if proj_bias_ptr is not None:
        y += tl.load(proj_bias_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    gate = opening.to(tl.float32) * (scale[:, None] * gate_scale[None, :])
    if gate_bias_ptr is not None:
        gate += tl.load(gate_bias_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    y *= tl.sigmoid(gate)
    if mask_ptr is not None:
        y = tl.where(tl.load(mask_ptr + rows, mask=row_mask, other=0)[:, None] != 0, y, 0.0)
    inverse = tl.load(inverse_ptr + columns * inverse_stride, mask=column_mask, other=1.0)
    codes = nearest_code(y, inverse[None, :], tl.load(out_zero_ptr), LOW, HIGH)
    places = rows * y_row_stride
    if line is not None:
        # Not in 64 bits, which no GPU divides: 2^31 rows are the pairs of 46,340 residues.
        lines = rows.to(tl.int32) // line
        places = lines.to(tl.int64) * y_line_stride + (rows - lines * line) * y_row_stride
    tl.store(
        y_ptr + places[:, None] + long_columns[None, :] * y_column_stride,
        codes.to(tl.int8),
        mask=row_mask[:, None] & column_mask[None, :],
    )


def gated_projection(
    x: Int8[Tensor, "m k"],
    x_scale: Float[Tensor, " s"],
    proj: Int8Projection,
    gate: Int8Projection,
    out_scale: Float[Tensor, "..."],
    *,
    x_zero: Integer[Tensor, " s"] | None = None,
    mask: Bool[Tensor, " m"] | None = None,
    out_zero: Integer[Tensor, ""] | None = None,
    out_low: int = -128,
    out_high: int = 127,
    out_layout: GatedLayout = "rows",
    out: Int8[Tensor, "m n"] | Int8[Tensor, "n m"] | Int8[Tensor, "n i k"] | None = None,
    tile: MatmulTile | None = None,
) -> Int8[Tensor, "m n"] | Int8[Tensor, "n m"]:
    """As `protquant.kernels.reference.gated_projection`, in one kernel that reads `x` once for both products.

    Parameters
    ----------
    out : Tensor, optional
        Where to write, of the shape of the layout, strided in any way; that of channels may have its rows in two axes.
    tile : MatmulTile, optional
        By default that of the device.
    """
    check_gated_projection(x, x_scale, proj, gate, out_scale, x_zero, mask, out_low, out_high, out_layout)
    if x_zero is not None and len(x_zero) != len(x_scale):
        raise ValueError(f"{len(x_scale)} scales and {len(x_zero)} zero points: give as many of one as of the other")
    (m, k), n = x.shape, len(proj.weight)
    by_rows = out_layout == "rows"
    shape = (m, n) if by_rows else (n, m)
    y = torch.empty(shape, dtype=torch.int8, device=x.device) if out is None else out
    in_lines = not by_rows and y.ndim == 3
    flat = (len(y), math.prod(y.shape[1:])) if in_lines else tuple(y.shape)
    if flat != shape or y.dtype != torch.int8:
        raise ValueError(f"out must be {shape} of int8, not {tuple(y.shape)} of {y.dtype}")
    if y.numel() == 0:
        return y
    x = x if x.stride(1) == 1 else x.contiguous()
    tile = tile or tuned("gated_projection", x.device, gated_tile(target_of(x.device)))
    inverse = out_scale.float().reciprocal().reshape(-1)
    zero = torch.zeros((), dtype=torch.int32, device=x.device) if out_zero is None else out_zero.int()
    gated_projection_kernel[(blocks_of(m, tile.block_m) * blocks_of(n, tile.block_n),)](
        x,
        x_scale.contiguous(),
        None if x_zero is None else x_zero.int().contiguous(),
        proj.weight.contiguous(),
        proj.scale.contiguous(),
        None if x_zero is None else proj.sums(),
        proj.bias,
        gate.weight.contiguous(),
        gate.scale.contiguous(),
        None if x_zero is None else gate.sums(),
        gate.bias,
        None if mask is None else mask.contiguous().view(torch.uint8),
        inverse,
        zero,
        y,
        m,
        n,
        k,
        x.stride(0),
        # One scale for all rows, or all channels, is read again and again: a stride of 0.
        0 if len(x_scale) == 1 else 1,
        0 if len(inverse) == 1 else 1,
        y.shape[2] if in_lines else None,
        y.stride(1) if in_lines else 0,
        *(y.stride() if by_rows else (y.stride(-1), y.stride(0))),
        LOW=out_low,
        HIGH=out_high,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
