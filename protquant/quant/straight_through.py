"""Simulated quantization with straight-through gradients, for training (Bengio et al. 2013)."""

from typing import Any

import torch
from torch import Tensor

from protquant.quant.formats import Quantizer

__all__ = ["round_straight_through", "straight_through"]

# Relative tolerance of the bounds of a grid: rounding of the scale must not put the largest value outside.
_TOLERANCE = 1e-6


class _Passing(torch.autograd.Function):
    """Returns `quantized`; passes its gradient to the values of `x` that are `inside`."""

    @staticmethod
    def forward(ctx: Any, _x: Tensor, quantized: Tensor, inside: Tensor | None) -> Tensor:
        ctx.save_for_backward(*(() if inside is None else (inside,)))
        return quantized.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient * ctx.saved_tensors[0] if ctx.saved_tensors else gradient, None, None


def straight_through(quantizer: Quantizer, x: Tensor) -> Tensor:
    """Return the exact output of `quantizer` for `x`, with derivative 1 inside the range of the grid and 0 outside.

    The scales get no gradient.
    """
    values = x.detach()
    frozen = quantizer.freeze(values)
    quantized = frozen(values)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return quantized
    bounds = frozen.bounds()
    inside = None
    if bounds is not None:
        low, high = (end + _TOLERANCE * end.abs() * side for end, side in zip(bounds, (-1, 1), strict=True))
        inside = (values >= low) & (values <= high)
    passed: Tensor = _Passing.apply(x, quantized, inside)  # type: ignore[no-untyped-call]
    return passed


def round_straight_through(x: Tensor) -> Tensor:
    """Return the nearest integers, with derivative 1."""
    rounded: Tensor = _Passing.apply(x, x.detach().round(), None)  # type: ignore[no-untyped-call]
    return rounded
