"""Layer normalization in one kernel, with decoding of bytes before it and quantization to int8 after it."""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from jaxtyping import Float, UInt8
from torch import Tensor

from protquant.kernels.operands import ByteGrid, Codes8, Grid, TokenGrid
from protquant.kernels.triton.piecewise import decode_bytes, decoding_numbers
from protquant.kernels.triton.quantize import encode, store_rows
from protquant.kernels.triton.row_tile import UNFUSED, RowTile
from protquant.kernels.triton.tiles import blocks_of

__all__ = ["decode_norm_quantize", "layer_norm_quantize", "norm_quantize_kernel"]

_NO_GRID = dict.fromkeys(("step", "lowest", "width", "left_step", "left_codes", "right_step"))


@triton.jit
def norm_quantize_kernel(
    x_ptr,
    gain_ptr,
    bias_ptr,
    scale_ptr,
    zero_ptr,
    codes_ptr,
    y_ptr,
    below_zero_ptr,
    M,
    C,
    x_stride,
    x_column_stride,
    eps,
    step,
    lowest,
    width,
    left_step,
    left_codes,
    right_step,
    MODE: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Process a few whole rows; the grid is None if they are floats, and pointers that are None are left out.

    Affine rows are not written if `below_zero_ptr` points to a 1.
    """
    end = M
    if MODE == "affine" and below_zero_ptr is not None:
        end = tl.where(tl.load(below_zero_ptr) != 0, 0, M)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_C)
    row_mask, column_mask = rows < end, columns < C
    mask = row_mask[:, None] & column_mask[None, :]
    # Channels may have a stride: in the result of a triangle multiplication they are the outermost axis.
    places = rows[:, None] * x_stride + columns.to(tl.int64)[None, :] * x_column_stride
    x = tl.load(x_ptr + places, mask=mask, other=0)
    if step is not None:
        x = decode_bytes(x, step, lowest, width, left_step, left_codes, right_step)
    x = x.to(tl.float32)
    # Columns beyond the last must not count: byte 0 is the lowest level, and 0 is not the mean.
    mean = tl.div_rn(tl.sum(tl.where(column_mask[None, :], x, 0.0), axis=1), C * 1.0)
    centered = tl.where(column_mask[None, :], x - mean[:, None], 0.0)
    variance = tl.div_rn(tl.sum(centered * centered, axis=1), C * 1.0)
    y = centered * tl.div_rn(1.0, tl.sqrt_rn(variance + eps))[:, None]
    if gain_ptr is not None:
        y *= tl.load(gain_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    if bias_ptr is not None:
        y += tl.load(bias_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    if y_ptr is not None:
        tl.store(y_ptr + rows[:, None] * C + columns[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)
    store_rows(
        y, rows, row_mask, columns, column_mask, scale_ptr, zero_ptr, codes_ptr, below_zero_ptr, C, MODE, LOW, HIGH
    )


def layer_norm_quantize(
    x: Float[Tensor, "m c"],
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    grid: Grid | TokenGrid,
) -> Codes8:
    """Return `protquant.kernels.backend.Backend.normalized_codes`, by one kernel.

    The order of sums differs from torch's. So a value in the middle between two codes, within float32 rounding, may get
    either code.
    """
    return _encode(x, _NO_GRID, gain, bias, eps, grid, None)


def decode_norm_quantize(
    codes: UInt8[Tensor, "m c"],
    kept: ByteGrid,
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    grid: Grid | TokenGrid,
    *,
    normalized: torch.dtype | None = None,
) -> tuple[Codes8, Float[Tensor, "m c"] | None]:
    """Return `protquant.kernels.reference.norm.decode_norm_quantize`, by one kernel; see `layer_norm_quantize`."""
    if codes.dtype != torch.uint8:
        raise ValueError(f"codes must be bytes (uint8), not {codes.dtype}")
    y = None if normalized is None else torch.empty(codes.shape, dtype=normalized, device=codes.device)
    return _encode(codes, decoding_numbers(kept), gain, bias, eps, grid, y), y


def _encode(
    x: Tensor,
    decoding: Mapping[str, float | None],
    gain: Tensor | None,
    bias: Tensor | None,
    eps: float,
    grid: Grid | TokenGrid,
    y: Tensor | None,
) -> Codes8:
    m, c = x.shape
    if c == 0:
        raise ValueError("rows of no channels have no mean")
    for name, tensor in (("gain", gain), ("bias", bias)):
        if tensor is not None and tuple(tensor.shape) != (c,):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, and rows have {c} channels")
    tile = RowTile.of(c)

    def launch(
        codes: Tensor, scale: Tensor, zero: Tensor | None, below_zero: Tensor | None, mode: str, low: int, high: int
    ) -> None:
        norm_quantize_kernel[(blocks_of(m, tile.block_m),)](
            x,
            None if gain is None else gain.contiguous(),
            None if bias is None else bias.contiguous(),
            scale,
            zero,
            codes,
            y,
            below_zero,
            m,
            c,
            *x.stride(),
            eps,
            **decoding,
            MODE=mode,
            LOW=low,
            HIGH=high,
            BLOCK_M=tile.block_m,
            BLOCK_C=tile.block_c,
            num_warps=tile.num_warps,
            **UNFUSED,
        )

    return encode(x, grid, launch)
