"""A linear layer on int8 codes, and in the same kernel what follows: scales, bias, activation, gate, residual."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int, Int8
from torch import Tensor

from protquant.kernels.gpu.tiles import MatmulTile
from protquant.kernels.reference.linear import Activation, check_linear_int8

__all__ = ["is_wide", "linear_int8", "linear_int8_kernel"]


@triton.jit
def linear_int8_kernel(
    x_ptr,
    x_scale_ptr,
    x_zero_ptr,
    weight_ptr,
    weight_scale_ptr,
    weight_sum_ptr,
    bias_ptr,
    gate_ptr,
    residual_ptr,
    y_ptr,
    M,
    N,
    K,
    x_stride,
    scale_stride,
    gate_stride,
    residual_stride,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of the output; pointers that are None at compile time are left out."""
    # Tiles go down a group of rows before they go right, so that weights and rows are found in the cache.
    program = tl.program_id(0)
    rows_of_tiles, columns_of_tiles = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = program // (GROUP_M * columns_of_tiles)
    height = min(rows_of_tiles - group * GROUP_M, GROUP_M)
    inside = program % (GROUP_M * columns_of_tiles)
    rows = (group * GROUP_M + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = (inside // height) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask, column_mask = rows < M, columns < N
    long_rows, long_columns = rows.to(tl.int64), columns.to(tl.int64)  # L x L x channels passes 2^31
    channels = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for start in range(0, K, BLOCK_K):
        channel_mask = start + channels < K
        x = tl.load(
            x_ptr + long_rows[:, None] * x_stride + (start + channels)[None, :],
            mask=row_mask[:, None] & channel_mask[None, :],
            other=0,
        )
        weight = tl.load(
            weight_ptr + long_columns[None, :] * K + (start + channels)[:, None],
            mask=column_mask[None, :] & channel_mask[:, None],
            other=0,
        )
        total = tl.dot(x, weight, total)
    if x_zero_ptr is not None:
        zero = tl.load(x_zero_ptr + long_rows * scale_stride, mask=row_mask, other=0)
        weight_sum = tl.load(weight_sum_ptr + columns, mask=column_mask, other=0)
        total -= zero[:, None] * weight_sum[None, :]
    scale = tl.load(x_scale_ptr + long_rows * scale_stride, mask=row_mask, other=0.0)
    weight_scale = tl.load(weight_scale_ptr + columns, mask=column_mask, other=0.0)
    y = total.to(tl.float32) * (scale[:, None] * weight_scale[None, :])
    if bias_ptr is not None:
        y += tl.load(bias_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == "relu":
        y = tl.maximum(y, 0.0)
    elif ACTIVATION == "gelu":
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    mask = row_mask[:, None] & column_mask[None, :]
    if gate_ptr is not None:
        y *= tl.load(gate_ptr + long_rows[:, None] * gate_stride + long_columns[None, :], mask=mask).to(tl.float32)
    if residual_ptr is not None:
        y += tl.load(residual_ptr + long_rows[:, None] * residual_stride + long_columns[None, :], mask=mask).to(
            tl.float32
        )
    tl.store(y_ptr + long_rows[:, None] * N + long_columns[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


def linear_int8(
    x: Int8[Tensor, "m k"],
    x_scale: Float[Tensor, " s"],
    weight: Int8[Tensor, "n k"],
    weight_scale: Float[Tensor, " n"],
    *,
    x_zero: Int[Tensor, " s"] | None = None,
    bias: Float[Tensor, " n"] | None = None,
    activation: Activation = "none",
    gate: Float[Tensor, "m n"] | None = None,
    residual: Float[Tensor, "m n"] | None = None,
    dtype: torch.dtype = torch.float32,
    weight_sum: Int[Tensor, " n"] | None = None,
    tile: MatmulTile | None = None,
) -> Float[Tensor, "m n"]:
    """As `protquant.kernels.reference.linear_int8`, in one kernel.

    Parameters
    ----------
    weight_sum : Tensor of int32, shape=(n,), optional
        Sums of the rows of `weight`, which a zero point needs; reckoned where they are not given.
    tile : MatmulTile, optional
        By default that of the device.
    """
    check_linear_int8(x, x_scale, weight, weight_scale, x_zero)
    (m, k), n = x.shape, len(weight)
    y = torch.empty((m, n), dtype=dtype, device=x.device)
    if y.numel() == 0:
        return y
    if x_zero is not None and weight_sum is None:
        weight_sum = weight.sum(1, dtype=torch.int32)
    x = _with_unit_columns(x)
    gate = None if gate is None else _with_unit_columns(gate)
    residual = None if residual is None else _with_unit_columns(residual)
    tile = tile or MatmulTile.for_device(x.device)
    if is_wide(gate, residual):
        tile = tile.narrow()
    # One scale for all rows is read again and again: a stride of 0.
    stride = 0 if len(x_scale) == 1 else 1
    if x_zero is not None and len(x_zero) != len(x_scale):
        raise ValueError(f"{len(x_scale)} scales and {len(x_zero)} zero points: give as many of one as of the other")
    linear_int8_kernel[(triton.cdiv(m, tile.block_m) * triton.cdiv(n, tile.block_n),)](
        x,
        x_scale,
        x_zero,
        weight.contiguous(),
        weight_scale,
        weight_sum,
        bias,
        gate,
        residual,
        y,
        m,
        n,
        k,
        x.stride(0),
        stride,
        0 if gate is None else gate.stride(0),
        0 if residual is None else residual.stride(0),
        ACTIVATION=activation,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP_M=8,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y


def is_wide(gate: Tensor | None, residual: Tensor | None) -> bool:
    """Whether the epilogue reads more float32 matrices than fit into registers beside a whole tile."""
    return gate is not None and residual is not None and torch.float32 in (gate.dtype, residual.dtype)


def _with_unit_columns(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
