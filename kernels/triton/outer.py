"""Products and differences of pairs of residues as int8 codes; floats of all pairs are not stored."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.operands import numbers, on_grid, with_unit_columns
from protquant.kernels.triton.row_tile import UNFUSED, RowTile
from protquant.kernels.triton.tiles import blocks_of

__all__ = ["outer_quantize", "outer_quantize_kernel"]


@triton.jit
def outer_quantize_kernel(
    q_ptr,
    k_ptr,
    scale_ptr,
    zero_ptr,
    codes_ptr,
    J,
    D,
    q_stride,
    k_stride,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Process a few residues j with one residue i."""
    blocks = tl.cdiv(J, BLOCK_J)
    i = (tl.program_id(0) // blocks).to(tl.int64)
    j = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_J + tl.arange(0, BLOCK_J)
    channels = tl.arange(0, BLOCK_D)
    mask = (j < J)[:, None] & (channels < D)[None, :]
    q = tl.load(q_ptr + j[:, None] * q_stride + channels[None, :], mask=mask, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + i * k_stride + channels, mask=channels < D, other=0.0).to(tl.float32)[None, :]
    inverse = tl.div_rn(1.0, tl.load(scale_ptr))
    zero = 0
    if zero_ptr is not None:
        zero = tl.load(zero_ptr)
    products = codes_ptr + (i * J + j)[:, None] * (2 * D) + channels[None, :]
    tl.store(products, nearest_code(q * k, inverse, zero, LOW, HIGH).to(tl.int8), mask=mask)
    tl.store(products + D, nearest_code(q - k, inverse, zero, LOW, HIGH).to(tl.int8), mask=mask)


def outer_quantize(q: Float[Tensor, "j d"], k: Float[Tensor, "i d"], grid: Grid) -> Codes8:
    """Return `protquant.kernels.backend.Backend.outer_codes`, by one kernel; the zero point is below 2^21."""
    (j, d), i = q.shape, len(k)
    if k.shape[1] != d:
        raise ValueError(f"q has {d} channels, and k has {k.shape[1]}")
    codes = torch.empty((i * j, 2 * d), dtype=torch.int8, device=q.device)
    if codes.numel():
        q, k = with_unit_columns(q), with_unit_columns(k)
        tile = RowTile.of(d)
        outer_quantize_kernel[(i * blocks_of(j, tile.block_m),)](
            q,
            k,
            *numbers(grid, q.device),
            codes,
            j,
            d,
            q.stride(0),
            k.stride(0),
            LOW=grid.signed.low,
            HIGH=grid.signed.high,
            BLOCK_J=tile.block_m,
            BLOCK_D=tile.block_c,
            num_warps=tile.num_warps,
            **UNFUSED,
        )
    return on_grid(codes, grid)
