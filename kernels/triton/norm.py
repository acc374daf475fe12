"""Layer normalization in one kernel with what is before and behind it: decoding of bytes, quantization to int8."""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference.norm import check_bytes, check_norm
from protquant.kernels.reference.quantize import TokenCodes, check_matrix, check_scale
from protquant.kernels.triton.piecewise import decode_bytes, decoding_numbers
from protquant.kernels.triton.quantize import encode_tokens, store_rows
from protquant.kernels.triton.row_tile import UNFUSED, RowTile
from protquant.kernels.triton.tiles import blocks_of

__all__ = [
    "decode_norm_quantize",
    "decode_norm_quantize_per_token",
    "layer_norm_quantize",
    "layer_norm_quantize_per_token",
    "norm_quantize_kernel",
]

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
    """Some whole rows; the grid is None where they are floats, and pointers that are None are left out.

    Affine rows are left as they are where there is a 1 at `below_zero_ptr`.
    """
    end = M
    if MODE == "affine" and below_zero_ptr is not None:
        end = tl.where(tl.load(below_zero_ptr) != 0, 0, M)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_C)
    row_mask, column_mask = rows < end, columns < C
    mask = row_mask[:, None] & column_mask[None, :]
    # Channels may lie further apart than neighbors do: what a triangle multiplication gives has them outermost.
    places = rows[:, None] * x_stride + columns.to(tl.int64)[None, :] * x_column_stride
    x = tl.load(x_ptr + places, mask=mask, other=0)
    if step is not None:
        x = decode_bytes(x, step, lowest, width, left_step, left_codes, right_step)
    x = x.to(tl.float32)
    # What is not there must not count: neither byte 0, which is the lowest level, nor 0, which is not the mean.
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
    scale: Float[Tensor, " 1"],
    zero: Integer[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
) -> Int8[Tensor, "m c"]:
    """As `protquant.kernels.reference.norm.layer_norm_quantize`, in one kernel.

    Sums are taken in another order than torch's, so that a value that lies within the rounding of float32 of the middle
    between two codes may get either.
    """
    check_matrix(x)
    check_norm(x, gain, bias)
    check_scale(scale, zero, low, high)
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    _launch(x, _NO_GRID, gain, bias, eps, scale, zero, codes, None, None, "static", low, high)
    return codes


def layer_norm_quantize_per_token(
    x: Float[Tensor, "m c"],
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    *,
    symmetric: bool = True,
    bits: int = 8,
    unsigned: bool = False,
) -> TokenCodes:
    """As `protquant.kernels.reference.norm.layer_norm_quantize_per_token`, in one kernel; see `layer_norm_quantize`."""
    check_matrix(x)
    check_norm(x, gain, bias)
    return _per_token(x, _NO_GRID, gain, bias, eps, None, symmetric=symmetric, bits=bits, unsigned=unsigned)


def decode_norm_quantize(
    codes: UInt8[Tensor, "m c"],
    grid: ByteGrid,
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    scale: Float[Tensor, " 1"],
    zero: Integer[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
    *,
    normalized: torch.dtype | None = None,
) -> tuple[Int8[Tensor, "m c"], Float[Tensor, "m c"] | None]:
    """As `protquant.kernels.reference.norm.decode_norm_quantize`, in one kernel; see `layer_norm_quantize`."""
    check_bytes(codes)
    check_norm(codes, gain, bias)
    check_scale(scale, zero, low, high)
    quantized = torch.empty(codes.shape, dtype=torch.int8, device=codes.device)
    y = None if normalized is None else torch.empty(codes.shape, dtype=normalized, device=codes.device)
    _launch(codes, decoding_numbers(grid), gain, bias, eps, scale, zero, quantized, y, None, "static", low, high)
    return quantized, y


def decode_norm_quantize_per_token(
    codes: UInt8[Tensor, "m c"],
    grid: ByteGrid,
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    *,
    symmetric: bool = True,
    normalized: torch.dtype | None = None,
) -> tuple[TokenCodes, Float[Tensor, "m c"] | None]:
    """As `protquant.kernels.reference.norm.decode_norm_quantize_per_token`, in one kernel.

    See `layer_norm_quantize` for what may differ.
    """
    check_bytes(codes)
    check_norm(codes, gain, bias)
    y = None if normalized is None else torch.empty(codes.shape, dtype=normalized, device=codes.device)
    numbers = decoding_numbers(grid)
    return _per_token(codes, numbers, gain, bias, eps, y, symmetric=symmetric, bits=8, unsigned=False), y


def _per_token(
    x: Tensor,
    grid: Mapping[str, float | None],
    gain: Tensor | None,
    bias: Tensor | None,
    eps: float,
    y: Tensor | None,
    *,
    symmetric: bool,
    bits: int,
    unsigned: bool,
) -> TokenCodes:
    def launch(encoded: TokenCodes, below_zero: Tensor | None, mode: str, low: int, high: int) -> None:
        codes, scales, zeros = encoded
        _launch(x, grid, gain, bias, eps, scales, zeros, codes, y, below_zero, mode, low, high)

    return encode_tokens(x, launch, symmetric=symmetric, bits=bits, unsigned=unsigned)


def _launch(
    x: Tensor,
    grid: Mapping[str, float | None],
    gain: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: Tensor,
    zero: Tensor | None,
    codes: Tensor,
    y: Tensor | None,
    below_zero: Tensor | None,
    mode: str,
    low: int,
    high: int,
) -> None:
    if x.numel() == 0:
        return
    m, c = x.shape
    tile = RowTile.of(c)
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
        **grid,
        MODE=mode,
        LOW=low,
        HIGH=high,
        BLOCK_M=tile.block_m,
        BLOCK_C=tile.block_c,
        num_warps=tile.num_warps,
        **UNFUSED,
    )
