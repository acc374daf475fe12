"""Simulated quantization that gradients pass through: what tunings train with (Bengio et al. 2013)."""

from typing import Any

import torch
from torch import Tensor

from protquant.quant.formats import Quantizer

__all__ = ["round_straight_through", "straight_through"]

# Of the bounds of a grid: the value that a scale was taken from is no value outside because of its own rounding.
_TOLERANCE = 1e-6


class _Passing(torch.autograd.Function):
    """Gives `quantized`, and the gradient of it to those values of `x` that are `inside`."""

    @staticmethod
    def forward(ctx: Any, _x: Tensor, quantized: Tensor, inside: Tensor | None) -> Tensor:
        ctx.save_for_backward(*(() if inside is None else (inside,)))
        return quantized.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient * ctx.saved_tensors[0] if ctx.saved_tensors else gradient, None, None


def straight_through(quantizer: Quantizer, x: Tensor) -> Tensor:
    """What `quantizer` makes of `x`, bit for bit, with the derivative 1 where `x` lies on its grid and 0 beyond.

    The grid itself gets no gradient.
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
    """The nearest integers, with the derivative 1."""
    rounded: Tensor = _Passing.apply(x, x.detach().round(), None)  # type: ignore[no-untyped-call]
    return rounded
