"""Piecewise linear bytes in few passes: the pieces are adjacent, so a byte is the sum of a clamped term for each."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from protquant.kernels.operands import ByteGrid

__all__ = ["decode_bytes", "encode_bytes"]


def encode_bytes(x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
    """Return bytes of `x`, equal to `protquant.kernels.reference.piecewise_bytes.encode_tailed_bytes`."""
    low, high = grid.low - grid.zero_point, grid.high - grid.zero_point
    level = x.mul(_reciprocal(grid.scale)).round_().clamp_(low, high)
    if grid.right_scale:
        tail = x.sub(_float32(high * grid.scale)).mul_(_reciprocal(grid.right_scale)).round_()
        level += tail.clamp_(0, grid.tail_high)
    if grid.left_scale:
        tail = x.sub(_float32(low * grid.scale)).mul_(_reciprocal(grid.left_scale)).round_()
        level += tail.clamp_(-grid.tail_high, 0)
    return level.add_(grid.left_codes - low).to(torch.uint8)


def decode_bytes(codes: UInt8[Tensor, "..."], grid: ByteGrid) -> Float[Tensor, "..."]:
    """Return the float32 values of bytes."""
    low, high = grid.low - grid.zero_point, grid.high - grid.zero_point
    level = codes.float()
    if grid.left_codes or low:
        level.add_(low - grid.left_codes)
    if not grid.left_scale and not grid.right_scale:
        return level.mul_(grid.scale)
    # Levels beyond the middle's ends count steps of a tail, the others steps of the middle.
    middle = level.clamp(low, high)
    beyond = level.sub_(middle)
    values = middle.mul_(grid.scale)
    if grid.left_scale == grid.right_scale or not grid.left_scale or not grid.right_scale:
        return values.add_(beyond, alpha=grid.left_scale or grid.right_scale)
    values.add_(beyond.clamp(min=0), alpha=grid.right_scale)
    return values.add_(beyond.clamp_(max=0), alpha=grid.left_scale)


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def _reciprocal(scale: float) -> float:
    """Return the reciprocal in float32: the reference multiplies by it."""
    return float(torch.tensor(scale, dtype=torch.float32).reciprocal())
