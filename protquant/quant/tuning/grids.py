"""Trainable uniform grids: the clipping of a weight, and the static range of an activation."""

from typing import Any

import torch
from torch import Tensor, nn

from protquant.kernels.reference import uniform_grid
from protquant.quant.formats import Uniform, UniformQuantizer
from protquant.quant.formats.granularity import grouped, ungrouped
from protquant.quant.straight_through import round_straight_through

__all__ = ["LearnedClipping", "LearnedRange"]

# sigmoid(4) = 0.982: almost no clipping at first, but with a gradient that is not zero.
_UNCLIPPED = 4.0
# Lower limit of a trained step, as a share of the first one, so that it stays positive.
_SMALLEST = 1e-2


class LearnedClipping(nn.Module):
    """A uniform grid for a weight, whose ends are trained shares of the range of the weight (LWC)."""

    def __init__(self, format_: Uniform, weight: Tensor) -> None:
        super().__init__()
        self.format_ = format_
        low, _ = self._extremes(weight.detach())
        self.lower = nn.Parameter(torch.full_like(low, _UNCLIPPED))
        self.upper = nn.Parameter(torch.full_like(low, _UNCLIPPED))

    def _extremes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        values = weight.float()
        if self.format_.granularity == "tensor" or values.ndim < 2:
            blocks = values.flatten()
        else:
            blocks = grouped(values.flatten(1), self.format_.group_size) if self.format_.group_size else values
        # Not amin and amax, whose gradients compare the whole weight with its extremes.
        keep = blocks.ndim > 1
        return blocks.min(-1, keepdim=keep).values, blocks.max(-1, keepdim=keep).values

    def _grid(self, weight: Tensor) -> tuple[Tensor, Tensor | None, int, int]:
        low, high = self._extremes(weight)
        low, high = low * self.lower.sigmoid(), high * self.upper.sigmoid()
        scale, zero_point, code_low, code_high = uniform_grid(
            low, high, self.format_.bits, self.format_.symmetric, self.format_.full_range
        )
        if zero_point is None:
            return scale, None, code_low, code_high
        unrounded = -low.clamp(max=0) / scale
        # The difference is exactly zero; it gives the rounded zero point the gradient of the unrounded one.
        return scale, zero_point + (unrounded - unrounded.detach()), code_low, code_high

    def forward(self, weight: Tensor) -> Tensor:
        scale, zero_point, low, high = self._grid(weight)
        values = grouped(weight, self.format_.group_size if scale.ndim > 2 else None)
        return ungrouped(_fake_quantize(values, scale, zero_point, low, high), weight.shape)

    @torch.no_grad()
    def freeze(self, weight: Tensor) -> UniformQuantizer:
        """Return the quantizer of the trained grid for this weight."""
        scale, zero_point, low, high = self._grid(weight)
        zero = None if zero_point is None else zero_point.int()
        group_size = self.format_.group_size if weight.ndim > 1 else None
        return UniformQuantizer(scale, zero, low, high, code_bits=self.format_.bits, group_size=group_size)


class LearnedRange(nn.Module):
    """A uniform grid for an activation, whose step and zero point are trained (LRL).

    Both parameters are relative to calibration, so that one learning rate serves grids of 8 and 16 bits: the step is a
    multiple of the first one, and the zero point moves by a share of all codes. In the paper they are absolute.
    """

    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, quantizer: UniformQuantizer) -> None:
        super().__init__()
        self.code_bits = quantizer.code_bits
        self.low, self.high = quantizer.codes.tolist()
        self.register_buffer("scale", quantizer.scale)
        self.register_buffer("zero_point", quantizer.zero_point)
        self.factor = nn.Parameter(torch.ones_like(quantizer.scale))
        zeros = None if quantizer.zero_point is None else torch.zeros_like(quantizer.scale)
        self.shift = None if zeros is None else nn.Parameter(zeros)

    def _grid(self) -> tuple[Tensor, Tensor | None]:
        scale = self.scale * self.factor
        if self.zero_point is None or self.shift is None:
            return scale, None
        # Rounded, unlike in the paper, so that training and inference use the same grid, with 0 on it.
        zero_point = round_straight_through(self.zero_point + self.shift * (self.high - self.low))
        return scale, zero_point.clamp(self.low, self.high)

    def forward(self, x: Tensor) -> Tensor:
        return _fake_quantize(x, *self._grid(), self.low, self.high)

    @torch.no_grad()
    def freeze(self) -> UniformQuantizer:
        """Return the quantizer of the trained grid."""
        scale, zero_point = self._grid()
        zero = None if zero_point is None else zero_point.int()
        return UniformQuantizer(scale.clone(), zero, self.low, self.high, code_bits=self.code_bits)

    @torch.no_grad()
    def truncate(self) -> None:
        """Raise steps that are too near to zero."""
        self.factor.clamp_(min=_SMALLEST)


class _FakeQuantize(torch.autograd.Function):
    """Same values as `UniformQuantizer`, with a straight-through gradient for rounding.

    A single autograd function: a chain of operations would store several tensors for each quantized one, and take three
    times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.codes = low, high
        bounds = _bounds(zero_point, low, high)
        codes = x.float().mul(scale.reciprocal()).round_().clamp_(*bounds)
        return codes.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero_point = ctx.saved_tensors
        gradient = gradients[0].float()
        unrounded = x.float().mul(scale.reciprocal())
        lost = unrounded.round().clamp_(*_bounds(zero_point, *ctx.codes)).sub_(unrounded)
        clipped = gradient.masked_fill(lost.abs() <= 0.5, 0)
        # The result is code times scale. A clipped code does not depend on the scale; others change with 1 / scale.
        scale_gradient = (gradient * lost).addcmul_(clipped, unrounded).sum_to_size(scale.shape)
        zero_gradient = None if zero_point is None else -scale * clipped.sum_to_size(scale.shape)
        return (gradient - clipped).to(x.dtype), scale_gradient, zero_gradient, None, None


def _bounds(zero_point: Tensor | None, low: int, high: int) -> tuple[Any, Any]:
    if zero_point is None:
        return low, high
    # A single zero point as a number: clamping to tensors is slower.
    zero = zero_point.item() if zero_point.numel() == 1 else zero_point
    return low - zero, high - zero


def _fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
    y: Tensor = _FakeQuantize.apply(x, scale, zero_point, low, high)  # type: ignore[no-untyped-call]
    return y
