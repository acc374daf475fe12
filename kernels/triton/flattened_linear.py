"""A linear layer on split channels: the kernel computes and quantizes the pieces, a block at a time."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from protquant.kernels.epilogue import PLAIN, Epilogue
from protquant.kernels.operands import Grid
from protquant.kernels.reference.linear_flattened import Pieces
from protquant.kernels.triton.epilogue import epilogue_arguments, finish_and_store, is_wide
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.nibbles import load_weight_steps
from protquant.kernels.triton.operands import KernelWeight, check_reads, with_unit_columns
from protquant.kernels.triton.output_tile import GROUP_M, output_tile
from protquant.kernels.triton.tiles import MatmulTile, blocks_of, target_of

__all__ = ["codes_of_pieces", "linear_flattened", "linear_flattened_kernel"]


@triton.jit
def codes_of_pieces(
    x_ptr,
    channel_ptr,
    low_ptr,
    high_ptr,
    x_inverse,
    rows,
    row_mask,
    stride,
    pieces,
    piece_mask,
    X_LOW: tl.constexpr,
    X_HIGH: tl.constexpr,
):
    """Return int8 codes of a block of pieces, and 0 beyond the last: channels clamped to the pieces, and rounded."""
    channel = tl.load(channel_ptr + pieces, mask=piece_mask, other=0)
    low = tl.load(low_ptr + pieces, mask=piece_mask, other=0).to(tl.float32)[None, :]
    high = tl.load(high_ptr + pieces, mask=piece_mask, other=0).to(tl.float32)[None, :]
    mask = row_mask[:, None] & piece_mask[None, :]
    x = tl.load(x_ptr + rows[:, None] * stride + channel[None, :], mask=mask, other=0).to(tl.float32)
    piece = tl.minimum(tl.maximum(x, -high), high) - tl.minimum(tl.maximum(x, -low), low)
    # The reference computes the difference in the type of x.
    piece = piece.to(x_ptr.dtype.element_ty).to(tl.float32)
    return tl.where(mask, nearest_code(piece, x_inverse, 0, X_LOW, X_HIGH), 0).to(tl.int8)


@triton.jit
def linear_flattened_kernel(
    x_ptr,
    channel_ptr,
    low_ptr,
    high_ptr,
    weight_ptr,
    weight_scale_ptr,
    weight_zero_ptr,
    bias_ptr,
    gate_ptr,
    residual_ptr,
    y_ptr,
    M,
    N,
    K,
    x_scale,
    x_inverse,
    x_stride,
    weight_stride,
    gate_stride,
    residual_stride,
    out_inverse,
    out_zero,
    X_LOW: tl.constexpr,
    X_HIGH: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OUT_LOW: tl.constexpr,
    OUT_HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """Compute one tile of the output from `K` pieces. Pointers that are None at compile time are left out.

    A weight with zero points is packed.
    """
    rows, columns = output_tile(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    row_mask, column_mask = rows < M, columns < N
    if weight_zero_ptr is not None:
        zero = tl.load(weight_zero_ptr + columns, mask=column_mask, other=0).to(tl.int8)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for start in range(0, K, BLOCK_K):
        pieces = start + tl.arange(0, BLOCK_K)
        piece_mask = pieces < K
        codes = codes_of_pieces(
            x_ptr,
            channel_ptr,
            low_ptr,
            high_ptr,
            x_inverse,
            rows,
            row_mask,
            x_stride,
            pieces,
            piece_mask,
            X_LOW,
            X_HIGH,
        )
        if weight_zero_ptr is not None:
            steps = load_weight_steps(weight_ptr, columns, column_mask, weight_stride, zero, start, K, False, BLOCK_K)
            weight = tl.trans(steps)
        else:
            weight = tl.load(
                weight_ptr + columns[None, :] * weight_stride + pieces[:, None],
                mask=column_mask[None, :] & piece_mask[:, None],
                other=0,
            )
        total = tl.dot(codes, weight, total, out_dtype=tl.int32)
    weight_scale = tl.load(weight_scale_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)
    finish_and_store(
        total.to(tl.float32) * (x_scale * weight_scale)[None, :],
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


def linear_flattened(
    x: Float[Tensor, "m c"],
    pieces: Pieces,
    grid: Grid,
    weight: KernelWeight,
    after: Epilogue = PLAIN,
    *,
    tile: MatmulTile | None = None,
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """Return `protquant.kernels.reference.linear_flattened`, by one kernel that does not store the pieces.

    Parameters
    ----------
    tile : MatmulTile, optional
        By default the tile of the device.

    Raises
    ------
    ValueError
        If the grid has a zero point, eight-bit weights have zero points, or there are several groups.
    """
    grid, m, n = grid.signed, len(x), len(weight.codes)
    check_reads(len(pieces.channel), weight)
    if grid.zero or (weight.kind == "int8" and weight.zero is not None) or weight.group_size < weight.channels:
        raise ValueError("split channels have neither a zero point nor groups, nor have eight-bit weights zero points")
    arguments = epilogue_arguments(m, n, x.device, weight.bias, after)
    y: Tensor = arguments["y_ptr"]
    if y.numel() == 0:
        return y
    x = with_unit_columns(x)
    wide = is_wide(arguments["gate_ptr"], arguments["residual_ptr"])
    tile = tile or MatmulTile.of(target_of(x.device), "flattened", wide=wide)
    linear_flattened_kernel[(blocks_of(m, tile.block_m) * blocks_of(n, tile.block_n),)](
        x_ptr=x,
        channel_ptr=pieces.channel.contiguous(),
        low_ptr=pieces.low.to(x.dtype).contiguous(),
        high_ptr=pieces.high.to(x.dtype).contiguous(),
        weight_ptr=weight.codes,
        weight_scale_ptr=weight.scale,
        weight_zero_ptr=weight.zero,
        M=m,
        N=n,
        K=weight.channels,
        x_scale=grid.scale,
        # The reciprocal in float32, as in the reference.
        x_inverse=float(torch.tensor(grid.scale).reciprocal()),
        x_stride=x.stride(0),
        weight_stride=weight.codes.stride(0),
        X_LOW=grid.low,
        X_HIGH=grid.high,
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
