"""The sums over the third residue of a triangle, for each channel, on int8 codes."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from protquant.kernels.operands import Direction, Grid
from protquant.kernels.triton.operands import numbers
from protquant.kernels.triton.tiles import MatmulTile, blocks_of, target_of
from protquant.kernels.triton.tiles_triangle import triangle_tile
from protquant.kernels.triton.tuned import tuned

__all__ = ["triangle_product", "triangle_product_kernel"]

_PADDING = 16


@triton.jit
def triangle_product_kernel(
    left_ptr,
    right_ptr,
    left_scale_ptr,
    right_scale_ptr,
    left_zero_ptr,
    left_sum_ptr,
    right_zero_ptr,
    right_sum_ptr,
    y_ptr,
    ROWS,
    COLUMNS,
    K,
    left_channel_stride,
    left_row_stride,
    left_k_stride,
    right_channel_stride,
    right_row_stride,
    right_k_stride,
    left_scale_stride,
    right_scale_stride,
    y_row_stride,
    y_channel_stride,
    PADDING: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute one tile of a channel's output. Pointers that are None at compile time are left out.

    Operands are padded to a multiple of PADDING residues, along K with zeros, so that loads are wide.
    """
    program = tl.program_id(0)
    across = tl.cdiv(COLUMNS, BLOCK_J)
    tiles = tl.cdiv(ROWS, BLOCK_I) * across
    channel, tile = program // tiles, program % tiles
    channel = channel.to(tl.int64)  # L x L x channels exceeds 2^31
    rows = (tile // across).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)
    columns = (tile % across).to(tl.int64) * BLOCK_J + tl.arange(0, BLOCK_J)
    row_mask, column_mask = rows < ROWS, columns < COLUMNS
    row_loads = (rows < tl.cdiv(ROWS, PADDING) * PADDING)[:, None]
    column_loads = (columns < tl.cdiv(COLUMNS, PADDING) * PADDING)[None, :]
    end = tl.cdiv(K, PADDING) * PADDING
    left_ptr += channel * left_channel_stride
    right_ptr += channel * right_channel_stride
    total = tl.zeros((BLOCK_I, BLOCK_J), dtype=tl.int32)
    for start in range(0, end, BLOCK_K):
        third = start + tl.arange(0, BLOCK_K)
        third_mask = third < end
        third = third.to(tl.int64)
        left = tl.load(
            left_ptr + rows[:, None] * left_row_stride + third[None, :] * left_k_stride,
            mask=row_loads & third_mask[None, :],
            other=0,
        )
        right = tl.load(
            right_ptr + columns[None, :] * right_row_stride + third[:, None] * right_k_stride,
            mask=column_loads & third_mask[:, None],
            other=0,
        )
        total = tl.dot(left, right, total, out_dtype=tl.int32)
    # sum((left - a) (right - b)) = sum(left right) - b sum(left) - a sum(right) + K a b. Another kernel computes the
    # sums of rows: here, with the product, they would not fit into registers.
    if right_zero_ptr is not None:
        left_sum = tl.load(left_sum_ptr + channel * ROWS + rows, mask=row_mask, other=0)
        total -= (left_sum * tl.load(right_zero_ptr))[:, None]
    if left_zero_ptr is not None:
        right_sum = tl.load(right_sum_ptr + channel * COLUMNS + columns, mask=column_mask, other=0)
        if right_zero_ptr is not None:
            right_sum -= K * tl.load(right_zero_ptr)
        total -= (right_sum * tl.load(left_zero_ptr))[None, :]
    scale = tl.load(left_scale_ptr + channel * left_scale_stride)
    scale *= tl.load(right_scale_ptr + channel * right_scale_stride)
    tl.store(
        y_ptr + channel * y_channel_stride + rows[:, None] * y_row_stride + columns[None, :],
        (total.to(tl.float32) * scale).to(y_ptr.dtype.element_ty),
        mask=row_mask[:, None] & column_mask[None, :],
    )


def triangle_product(
    left: Int8[Tensor, "c a b"],
    right: Int8[Tensor, "c d e"],
    grids: tuple[Grid, Grid],
    direction: Direction,
    *,
    dtype: torch.dtype = torch.float32,
    is_padded: bool = False,
    tile: MatmulTile | None = None,
) -> Float[Tensor, "c i j"]:
    """Return `protquant.kernels.reference.triangle_product`, times both scales, by one kernel.

    Operands may have any strides. Another pass sums an operand with zero points.

    Parameters
    ----------
    is_padded : bool
        Whether both operands are parts of padded ones, whose rows begin at multiples of 16 bytes. The padding reaches
        the next multiple of 16: zeros along k, and any values along i and j. The speed is then the same for any number
        of residues.
    dtype : torch.dtype
        Type of the output. A sum over many residues may exceed 65,504, the limit of float16; bfloat16 and float32
        hold it.
    tile : MatmulTile, optional
        By default the tile of the device.

    Raises
    ------
    ValueError
        If operands do not fit together.
    """
    summed = 2 if direction == "outgoing" else 1
    if left.dtype != torch.int8 or right.dtype != torch.int8:
        raise ValueError(f"operands must be int8, not {left.dtype} and {right.dtype}")
    if left.shape[0] != right.shape[0] or left.shape[summed] != right.shape[summed]:
        raise ValueError(f"{direction} edges cannot be summed over {tuple(left.shape)} and {tuple(right.shape)}")
    if direction == "incoming":
        left, right = left.transpose(1, 2), right.transpose(1, 2)
    (c, i, k), j = left.shape, right.shape[1]
    y = torch.empty((c, i, j), dtype=dtype, device=left.device)
    if y.numel() == 0:
        return y
    (left_scale, left_zero), (right_scale, right_zero) = (numbers(grid, left.device) for grid in grids)
    lengths = () if is_padded else (i, j, k)
    strides = (*lengths, *left.stride(), *right.stride())
    is_aligned = all(stride % 16 == 0 for stride in strides if stride != 1)
    is_aligned = is_aligned and left.data_ptr() % 16 == 0 and right.data_ptr() % 16 == 0
    if tile is None:
        tile = triangle_tile(target_of(left.device), is_aligned=is_aligned)
        tile = tuned("triangle_product", left.device, tile) if is_aligned else tile
    triangle_product_kernel[(c * blocks_of(i, tile.block_m) * blocks_of(j, tile.block_n),)](
        left,
        right,
        left_scale,
        right_scale,
        left_zero,
        None if right_zero is None else left.sum(2, dtype=torch.int32),
        right_zero,
        None if left_zero is None else right.sum(2, dtype=torch.int32),
        y,
        i,
        j,
        k,
        *left.stride(),
        *right.stride(),
        0,  # one scale for all channels of either operand
        0,
        j,
        i * j,
        PADDING=_PADDING if is_padded else 1,
        BLOCK_I=tile.block_m,
        BLOCK_J=tile.block_n,
        BLOCK_K=tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
