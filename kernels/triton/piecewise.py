"""Piecewise linear codes of one byte: encoding, decoding, and the sum of a residual in bytes and an update."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, UInt8
from torch import Tensor

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference.piecewise_bytes import check_residual_add
from protquant.kernels.triton.nearest_code import nearest
from protquant.kernels.triton.row_tile import UNFUSED
from protquant.kernels.triton.tiles import blocks_of

__all__ = [
    "decode_bytes",
    "decode_tailed_bytes",
    "decode_tailed_bytes_kernel",
    "decoding_numbers",
    "encode_bytes",
    "encode_tailed_bytes",
    "encode_tailed_bytes_kernel",
    "encoding_numbers",
    "residual_add_encode",
    "residual_add_encode_kernel",
]

_BLOCK = 4096


def encoding_numbers(grid: ByteGrid) -> dict[str, float]:
    """Return a grid as arguments of encoding kernels, by name; all are float32, or integers that float32 holds."""
    inverse, left_inverse, right_inverse = (
        # The step of an absent tail has no effect, but must be finite.
        torch.tensor(step or 1.0, dtype=torch.float32).reciprocal().item()
        for step in (grid.scale, grid.left_scale, grid.right_scale)
    )
    return {
        "step": grid.scale,
        "inverse": inverse,
        "lowest": float(grid.low - grid.zero_point),
        "width": float(grid.high - grid.low),
        "left_inverse": left_inverse,
        "left_codes": float(grid.left_codes),
        "right_inverse": right_inverse,
        "right_codes": float(grid.right_codes),
    }


def decoding_numbers(grid: ByteGrid) -> dict[str, float]:
    """Return a grid as arguments of decoding kernels, by name."""
    return {
        "step": grid.scale,
        "lowest": float(grid.low - grid.zero_point),
        "width": float(grid.high - grid.low),
        "left_step": grid.left_scale,
        "left_codes": float(grid.left_codes),
        "right_step": grid.right_scale,
    }


@triton.jit
def encode_bytes(x, step, inverse, lowest, width, left_inverse, left_codes, right_inverse, right_codes):
    """Return bytes of float32 `x`.

    The level is the sum of three clamped terms, one for each piece; a tail's term is 0 within the middle. So the kernel
    needs no branch.
    """
    middle = nearest(x * inverse, lowest, lowest + width) - lowest
    left = nearest((lowest * step - x) * left_inverse, 0.0, left_codes)
    right = nearest((x - (lowest + width) * step) * right_inverse, 0.0, right_codes)
    return (left_codes - left + middle + right).to(tl.int32).to(tl.uint8)


@triton.jit
def decode_bytes(codes, step, lowest, width, left_step, left_codes, right_step):
    """Return float32 values of bytes: the sum of a term for each piece; adding the 0 of an unused piece is exact."""
    level = codes.to(tl.float32) - left_codes
    middle = (tl.minimum(tl.maximum(level, 0.0), width) + lowest) * step
    return middle + tl.maximum(level - width, 0.0) * right_step - tl.maximum(-level, 0.0) * left_step


@triton.jit
def encode_tailed_bytes_kernel(
    x_ptr,
    codes_ptr,
    count,
    step,
    inverse,
    lowest,
    width,
    left_inverse,
    left_codes,
    right_inverse,
    right_codes,
    BLOCK: tl.constexpr,
):
    """Process a block of elements."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < count
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    codes = encode_bytes(x, step, inverse, lowest, width, left_inverse, left_codes, right_inverse, right_codes)
    tl.store(codes_ptr + offsets, codes, mask=mask)


@triton.jit
def decode_tailed_bytes_kernel(
    codes_ptr,
    y_ptr,
    count,
    step,
    lowest,
    width,
    left_step,
    left_codes,
    right_step,
    BLOCK: tl.constexpr,
):
    """Process a block of elements."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < count
    codes = tl.load(codes_ptr + offsets, mask=mask, other=0)
    y = decode_bytes(codes, step, lowest, width, left_step, left_codes, right_step)
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def residual_add_encode_kernel(
    residual_ptr,
    update_ptr,
    codes_ptr,
    count,
    step,
    inverse,
    lowest,
    width,
    left_inverse,
    left_codes,
    right_inverse,
    right_codes,
    old_step,
    old_lowest,
    old_width,
    old_left_step,
    old_left_codes,
    old_right_step,
    BLOCK: tl.constexpr,
):
    """Process a block of elements; the old grid is None if the residual is float."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < count
    # The program that reads an element also writes it, afterwards: so the codes may overwrite the residual.
    residual = tl.load(residual_ptr + offsets, mask=mask, other=0)
    if old_step is not None:
        residual = decode_bytes(
            residual, old_step, old_lowest, old_width, old_left_step, old_left_codes, old_right_step
        )
    update = tl.load(update_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    total = residual.to(tl.float32) + update
    codes = encode_bytes(total, step, inverse, lowest, width, left_inverse, left_codes, right_inverse, right_codes)
    tl.store(codes_ptr + offsets, codes, mask=mask)


def encode_tailed_bytes(x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
    """Return `protquant.kernels.reference.piecewise_bytes.encode_tailed_bytes`, by one kernel."""
    codes = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    count = x.numel()
    if count:
        encode_tailed_bytes_kernel[(blocks_of(count, _BLOCK),)](
            x.contiguous(), codes, count, **encoding_numbers(grid), BLOCK=_BLOCK, **UNFUSED
        )
    return codes


def decode_tailed_bytes(
    codes: UInt8[Tensor, "..."], grid: ByteGrid, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "..."]:
    """Return `protquant.kernels.reference.piecewise_bytes.decode_tailed_bytes`, by one kernel."""
    y = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    count = codes.numel()
    if count:
        decode_tailed_bytes_kernel[(blocks_of(count, _BLOCK),)](
            codes.contiguous(), y, count, **decoding_numbers(grid), BLOCK=_BLOCK, **UNFUSED
        )
    return y


def residual_add_encode(
    residual: UInt8[Tensor, "..."] | Float[Tensor, "..."],
    update: Float[Tensor, "..."],
    grid: ByteGrid,
    *,
    residual_grid: ByteGrid | None = None,
    out: UInt8[Tensor, "..."] | None = None,
) -> UInt8[Tensor, "..."]:
    """Return `protquant.kernels.reference.piecewise_bytes.residual_add_encode`, by one kernel.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or `out` is not contiguous.
    """
    check_residual_add(residual, update, residual_grid, out)
    if out is not None and not out.is_contiguous():
        raise ValueError(f"out has the strides {out.stride()}: it must be contiguous")
    codes = torch.empty(residual.shape, dtype=torch.uint8, device=residual.device) if out is None else out
    count = residual.numel()
    names = decoding_numbers(grid)
    old = decoding_numbers(residual_grid or grid) if residual.dtype == torch.uint8 else dict.fromkeys(names)
    if count:
        residual_add_encode_kernel[(blocks_of(count, _BLOCK),)](
            residual.contiguous(),
            update.contiguous(),
            codes,
            count,
            **encoding_numbers(grid),
            **{f"old_{name}": number for name, number in old.items()},
            BLOCK=_BLOCK,
            **UNFUSED,
        )
    return codes
