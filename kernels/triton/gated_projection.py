"""A projection times the sigmoid of another, quantized in the same kernel."""

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Int8
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.operands import KernelWeight, check_reads, numbers, with_unit_columns
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
    """Compute one tile of the output. Pointers that are None at compile time are left out.

    If `line` is not None, the output has lines of `line` rows, which begin `y_line_stride` elements apart.
    """
    # Programs with the same rows run one after another: rows would leave the cache otherwise, weights stay there.
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
        # Divide in 32 bits, as GPUs have no 64-bit division: 2^31 rows are the pairs of 46,340 residues.
        lines = rows.to(tl.int32) // line
        places = lines.to(tl.int64) * y_line_stride + (rows - lines * line) * y_row_stride
    tl.store(
        y_ptr + places[:, None] + long_columns[None, :] * y_column_stride,
        codes.to(tl.int8),
        mask=row_mask[:, None] & column_mask[None, :],
    )


def gated_projection(
    x: Codes8,
    proj: KernelWeight,
    gate: KernelWeight,
    grid: Grid,
    mask: Bool[Tensor, " m"] | None = None,
    *,
    has_zero: bool = True,
    out: Int8[Tensor, "n i k"] | None = None,
    tile: MatmulTile | None = None,
) -> Int8[Tensor, "n m"] | Int8[Tensor, "n i k"]:
    """Return `protquant.kernels.reference.gated_projection`, by one kernel that reads `x` once for both products.

    Parameters
    ----------
    proj, gate : KernelWeight
        Weights of eight bits, without zero points.
    has_zero : bool
        False if the zero points of `x` are known to be 0: the kernel leaves them out.
    out : Tensor, shape=(n, i, k) with m = i * k, optional
        Memory for the output, with any strides.
    tile : MatmulTile, optional
        By default the tile of the device.

    Raises
    ------
    ValueError
        If operands do not fit.
    """
    data, (m, k), n = with_unit_columns(x.data), x.data.shape, len(proj.codes)
    for weight in (proj, gate):
        check_reads(k, weight)
        if weight.kind != "int8" or weight.zero is not None or len(weight.codes) != n:
            raise ValueError("the projection and its gate are not symmetric weights of eight bits with as many outputs")
    if mask is not None and (tuple(mask.shape) != (m,) or mask.dtype != torch.bool):
        raise ValueError(f"the mask of {m} rows is {tuple(mask.shape)} of {mask.dtype}, not bool")
    y = torch.empty((n, m), dtype=torch.int8, device=data.device) if out is None else out
    if y.dtype != torch.int8 or len(y) != n or y.numel() != n * m:
        raise ValueError(f"out must be int8 of {n} channels of {m} rows, not {tuple(y.shape)} of {y.dtype}")
    if y.numel() == 0:
        return y
    tile = tile or tuned("gated_projection", data.device, gated_tile(target_of(data.device)))
    scale, zero = numbers(grid, data.device)
    gated_projection_kernel[(blocks_of(m, tile.block_m) * blocks_of(n, tile.block_n),)](
        data,
        x.scale,
        x.zero if has_zero else None,
        proj.codes,
        proj.scale,
        proj.sums if has_zero else None,
        proj.bias,
        gate.codes,
        gate.scale,
        gate.sums if has_zero else None,
        gate.bias,
        None if mask is None else mask.contiguous().view(torch.uint8),
        scale.reciprocal(),
        torch.zeros((), dtype=torch.int32, device=data.device) if zero is None else zero,
        y,
        m,
        n,
        k,
        data.stride(0),
        # A stride of 0 makes every row read the one scale.
        0 if len(x.scale) == 1 else 1,
        0,
        None if out is None else y.shape[2],
        0 if out is None else y.stride(1),
        y.stride(-1),
        y.stride(0),
        LOW=grid.signed.low,
        HIGH=grid.signed.high,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
