"""A linear layer on int8 codes; the same kernel applies scales, bias, activation, gate and residual."""

import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from protquant.kernels.epilogue import PLAIN, Epilogue
from protquant.kernels.operands import Codes8
from protquant.kernels.triton.epilogue import epilogue_arguments, finish_and_store, is_wide
from protquant.kernels.triton.operands import KernelWeight, check_reads, with_unit_columns
from protquant.kernels.triton.output_tile import GROUP_M, output_tile
from protquant.kernels.triton.tiles import MatmulTile, blocks_of, linear_key, target_of
from protquant.kernels.triton.tuned import tuned

__all__ = ["linear_int8", "linear_int8_kernel"]


@triton.jit
def linear_int8_kernel(
    x_ptr,
    x_scale_ptr,
    x_zero_ptr,
    weight_ptr,
    weight_scale_ptr,
    weight_zero_ptr,
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
    out_inverse,
    out_zero,
    ACTIVATION: tl.constexpr,
    OUT_LOW: tl.constexpr,
    OUT_HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """Compute one tile of the output. Pointers that are None at compile time are left out.

    `weight_sum_ptr` has sums over channels of the weight less its zero point.
    """
    rows, columns = output_tile(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    row_mask, column_mask = rows < M, columns < N
    channels = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    x_sum = tl.zeros((BLOCK_M,), dtype=tl.int32)
    for start in range(0, K, BLOCK_K):
        channel_mask = start + channels < K
        x = tl.load(
            x_ptr + rows[:, None] * x_stride + (start + channels)[None, :],
            mask=row_mask[:, None] & channel_mask[None, :],
            other=0,
        )
        weight = tl.load(
            weight_ptr + columns[None, :] * K + (start + channels)[:, None],
            mask=column_mask[None, :] & channel_mask[:, None],
            other=0,
        )
        total = tl.dot(x, weight, total, out_dtype=tl.int32)
        if weight_zero_ptr is not None:
            x_sum += tl.sum(x.to(tl.int32), axis=1)
    # The sum of (x - a) (w - b) is x w - b sum(x) - a sum(w - b). Parts may wrap beyond 32 bits; their total is right.
    if weight_zero_ptr is not None:
        weight_zero = tl.load(weight_zero_ptr + columns, mask=column_mask, other=0)
        total -= x_sum[:, None] * weight_zero[None, :]
    if x_zero_ptr is not None:
        zero = tl.load(x_zero_ptr + rows * scale_stride, mask=row_mask, other=0)
        weight_sum = tl.load(weight_sum_ptr + columns, mask=column_mask, other=0)
        total -= zero[:, None] * weight_sum[None, :]
    scale = tl.load(x_scale_ptr + rows * scale_stride, mask=row_mask, other=0.0).to(tl.float32)
    weight_scale = tl.load(weight_scale_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)
    y = total.to(tl.float32) * (scale[:, None] * weight_scale[None, :])
    finish_and_store(
        y,
        rows,
        columns,
        M,
        N,
        bias_ptr,
        gate_ptr,
        residual_ptr,
        y_ptr,
        gate_stride,
        residual_stride,
        out_inverse,
        out_zero,
        ACTIVATION,
        OUT_LOW,
        OUT_HIGH,
    )


def linear_int8(
    x: Codes8,
    weight: KernelWeight,
    after: Epilogue = PLAIN,
    *,
    has_zero: bool = True,
    out: Float[Tensor, "m n"] | Int8[Tensor, "m n"] | None = None,
    tile: MatmulTile | None = None,
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """Return `protquant.kernels.reference.linear.linear` for weights of eight bits, by one kernel.

    Parameters
    ----------
    has_zero : bool
        False if the zero points of `x` are known to be 0: the kernel leaves them out.
    out : Tensor, shape=(m, n), contiguous, optional
        Memory for the output; it may be the residual itself.
    tile : MatmulTile, optional
        By default the tile of the device.

    Raises
    ------
    ValueError
        If operands do not fit.
    """
    data, (m, k), n = with_unit_columns(x.data), x.data.shape, len(weight.codes)
    check_reads(k, weight)
    arguments = epilogue_arguments(m, n, data.device, weight.bias, after, out)
    y: Tensor = arguments["y_ptr"]
    if y.numel() == 0:
        return y
    if tile is None:
        # Sums of the rows of x take registers, as float32 matrices do.
        wide = weight.zero is not None or is_wide(arguments["gate_ptr"], arguments["residual_ptr"])
        default = MatmulTile.of(target_of(data.device), "int8", channels=k, wide=wide)
        tile = tuned(linear_key("int8", k, wide), data.device, default)
    linear_int8_kernel[(blocks_of(m, tile.block_m) * blocks_of(n, tile.block_n),)](
        x_ptr=data,
        x_scale_ptr=x.scale,
        x_zero_ptr=x.zero if has_zero else None,
        weight_ptr=weight.codes,
        weight_scale_ptr=weight.scale,
        weight_zero_ptr=weight.zero,
        weight_sum_ptr=weight.sums if has_zero else None,
        M=m,
        N=n,
        K=k,
        x_stride=data.stride(0),
        # A stride of 0 makes every row read the one scale.
        scale_stride=0 if len(x.scale) == 1 else 1,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP_M=GROUP_M,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        enable_fp_fusion=False,  # round products before the addition, as the reference does
        **arguments,
    )
    return y
