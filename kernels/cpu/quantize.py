"""Codes of float matrices, in as few passes over memory as stock torch allows."""

import warnings
from functools import cache, lru_cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid, TokenGrid

__all__ = ["on_grid", "quantize", "quantize_static"]


def quantize_static(x: Float[Tensor, "m k"], grid: Grid) -> UInt8[Tensor, "m k"]:
    """Return codes on the unsigned form of `grid`, in one pass.

    A value half-way between two codes gets the even code. The reference rounds to an even number of steps from 0, which
    is the other code if the zero point is odd.
    """
    grid = grid.unsigned
    x = x.float()
    if not _has_one_pass():
        codes = (x * (1 / grid.scale)).add_(grid.zero).round_().clamp_(grid.low, grid.high)
        return codes.to(torch.uint8)
    quantized = torch.quantize_per_tensor(x, grid.scale, grid.zero, torch.quint8)
    # A view of the bytes of torch's quantized tensor, without a copy.
    codes = torch.empty(0, dtype=torch.uint8).set_(quantized.untyped_storage(), 0, x.shape, quantized.stride())
    return codes.clamp_(grid.low, grid.high) if (grid.low, grid.high) != (0, 255) else codes


@cache
def _has_one_pass() -> bool:
    """Return whether torch has quantized tensors, which are deprecated; without them codes take four passes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.quantize_per_tensor(torch.ones(1), 0.5, 1, torch.quint8).int_repr().item() == 3
        except (AttributeError, RuntimeError):
            return False


def on_grid(codes: UInt8[Tensor, "m k"], grid: Grid) -> Codes8:
    """Return `data` as codes on the unsigned form of `grid`."""
    return Codes8(codes, *_numbers(grid))


@lru_cache(maxsize=4096)
def _numbers(grid: Grid) -> tuple[Tensor, Tensor]:
    # Cached: to make them takes as long as to quantize a few hundred rows.
    return torch.tensor([grid.scale]), torch.tensor([grid.unsigned.zero], dtype=torch.int32)


def quantize(x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
    """Return codes of a matrix, from 0 to 255."""
    if isinstance(grid, Grid):
        return on_grid(quantize_static(x, grid), grid)
    x = x.float()
    low, high = x.aminmax(dim=-1, keepdim=True)
    tiny = torch.finfo(torch.float32).tiny
    if grid.symmetric:
        if bool((low >= 0).all()):
            largest, middle = 2**grid.bits - 1, 0
        else:
            largest, middle = 2 ** (grid.bits - 1) - 1, 128
        scale = torch.maximum(-low, high).double() / largest
        scale = torch.where(scale > tiny, scale, 1.0).float()
        # Divide rows by their scales, then round and clamp all at once: only rounding can pass the limits.
        steps = quantize_static(x * scale.reciprocal(), Grid(1.0, middle, max(0, middle - largest), middle + largest))
        return Codes8(steps, scale[:, 0], torch.full((len(x),), middle, dtype=torch.int32))
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    codes = 2**grid.bits - 1
    scale = (high - low) / codes
    scale = torch.where(scale > tiny, scale, 1.0)
    zero_point = (-low / scale).round()
    scale = scale.float()
    # Round before the zero point is added, as the reference does.
    steps = (x * scale.reciprocal()).round_().add_(zero_point.float())
    return Codes8(quantize_static(steps, Grid(1.0, 0, 0, codes)), scale[:, 0], zero_point[:, 0].int())
