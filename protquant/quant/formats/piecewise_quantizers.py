"""The two layouts of pieces as quantizers: a middle with tails, and two grids that overlap."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from protquant.kernels.reference import (
    PiecewiseCodes,
    Tails,
    decode_tailed,
    decode_two_scale,
    encode_tailed,
    encode_two_scale,
)
from protquant.quant.formats.base import Codes, StaticQuantizer
from protquant.quant.formats.uniform import uniform_grid

__all__ = ["TailedQuantizer", "TwoScaleQuantizer"]

# So many values fit in a core's cache with their intermediates; a dozen passes over them stay there.
_BLOCK = 2**16


def _in_blocks(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function`, elementwise, of float32 values of `x`, block by block on a CPU."""
    flat = x.reshape(-1)
    if x.device.type != "cpu" or flat.numel() <= _BLOCK or (torch.is_grad_enabled() and x.requires_grad):
        return function(x.float()).to(x.dtype)
    out = torch.empty_like(flat)
    for part, result in zip(torch.split(flat, _BLOCK), torch.split(out, _BLOCK), strict=True):
        result.copy_(function(part.float()))
    return out.view(x.shape)


def _step(step: float) -> float:
    """As float32 holds it; 1 where nothing but zeros, or what float32 flushes to zero, is to be covered."""
    return float(np.float32(step)) if step > torch.finfo(torch.float32).tiny else 1.0


def _regions(encoded: Codes) -> PiecewiseCodes:
    if encoded.regions is None:
        raise ValueError("codes of a piecewise linear format come with regions")
    return PiecewiseCodes(encoded.codes, encoded.regions)


class TailedQuantizer(StaticQuantizer):
    """A fine middle, and coarse tails that begin where it ends.

    Parameters
    ----------
    bits : int
        Of a code in the middle.
    scale, zero_point : Tensor, shape=()
        Grid of the middle.
    left_scale, right_scale : Tensor, shape=(), or None
        Steps of the tails; None for no tail.
    low, high : int
        The middle's smallest and largest code.
    """

    scale: Tensor
    zero_point: Tensor
    left_scale: Tensor | None
    right_scale: Tensor | None

    def __init__(
        self,
        bits: int,
        scale: Tensor,
        zero_point: Tensor,
        left_scale: Tensor | None,
        right_scale: Tensor | None,
        low: int,
        high: int,
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.register_buffer("left_scale", left_scale)
        self.register_buffer("right_scale", right_scale)
        self.low, self.high, self.tail_high = low, high, 2 ** (bits - 1) - 1
        self.code_bits = bits + 1

    @classmethod
    def asymmetric(cls, bits: int, span: tuple[float, float], breakpoints: tuple[float, float]) -> "TailedQuantizer":
        """Affine middle between `breakpoints`, moved so that 0 is on the grid; tails to the ends of `span`."""
        scale = _step((breakpoints[1] - breakpoints[0]) / (2**bits - 1))
        return cls._with_tails(bits, scale, round(-breakpoints[0] / scale), span, 0, 2**bits - 1)

    @classmethod
    def symmetric(cls, bits: int, magnitude: float, breakpoint: float, unsigned: bool) -> "TailedQuantizer":
        """Middle on [-breakpoint, breakpoint], or on [0, breakpoint] if `unsigned`, tails to `magnitude`."""
        low, high = (0, 2**bits - 1) if unsigned else (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
        span = (0.0 if unsigned else -magnitude, magnitude)
        return cls._with_tails(bits, _step(breakpoint / high), 0, span, low, high)

    @classmethod
    def _with_tails(
        cls, bits: int, scale: float, zero_point: int, span: tuple[float, float], low: int, high: int
    ) -> "TailedQuantizer":
        # Plain numbers until here, because a search makes hundreds of these.
        lengths = (low - zero_point) * scale - span[0], span[1] - (high - zero_point) * scale
        # Shorter than half a step of the middle is no tail: the middle's end errs no more than its steps do.
        left, right = (
            torch.tensor(length / (2 ** (bits - 1) - 1)) if length > scale / 2 else None for length in lengths
        )
        return cls(bits, torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32), left, right, low, high)

    @property
    def _tails(self) -> Tails:
        return Tails(self.left_scale, self.right_scale, self.tail_high)

    def breakpoints(self) -> tuple[float, float]:
        """Ends of the middle."""
        scale, zero = self.scale.item(), int(self.zero_point)
        return (self.low - zero) * scale, (self.high - zero) * scale

    def encode(self, x: Tensor) -> Codes:
        return Codes(*encode_tailed(x, self.scale, self.zero_point, self.low, self.high, self._tails))

    def decode(self, encoded: Codes) -> Tensor:
        return decode_tailed(_regions(encoded), self.scale, self.zero_point, self.low, self.high, self._tails)

    def bounds(self) -> tuple[Tensor, Tensor]:
        bottom, top = ((code - self.zero_point) * self.scale for code in (self.low, self.high))
        if self.left_scale is not None:
            bottom = bottom - self.tail_high * self.left_scale
        if self.right_scale is not None:
            top = top + self.tail_high * self.right_scale
        return bottom, top

    def scale_bits(self) -> int:
        return 3 * 32 + self.code_bits - 1

    def forward(self, x: Tensor) -> Tensor:
        # Each piece saturates at its ends, and the tails are 0 at theirs: the three add up to the answer, without
        # asking which piece a value is in (`where` on a CPU costs more than a piece).
        scale, zero = self.scale.item(), int(self.zero_point)
        left = None if self.left_scale is None else self.left_scale.item()
        right = None if self.right_scale is None else self.right_scale.item()
        bottom, top = self.breakpoints()

        def simulate(x: Tensor) -> Tensor:
            y = x.mul(1 / scale).round_().clamp_(self.low - zero, self.high - zero).mul_(scale)
            if right is not None:
                y.add_(x.sub(top).mul_(1 / right).round_().clamp_(0, self.tail_high), alpha=right)
            if left is not None:
                y.add_(x.sub(bottom).mul_(1 / left).round_().clamp_(-self.tail_high, 0), alpha=left)
            return y

        return _in_blocks(x, simulate)

    def extra_repr(self) -> str:
        left, right = self.breakpoints()
        low, high = (end.item() for end in self.bounds())
        return f"middle [{left:.4g}, {right:.4g}] of [{low:.4g}, {high:.4g}]"


class TwoScaleQuantizer(StaticQuantizer):
    """A fine grid below the breakpoint's magnitude, and a coarse grid over everything for the rest."""

    inner_scale: Tensor
    outer_scale: Tensor
    breakpoint: Tensor

    def __init__(
        self, bits: int, inner_scale: Tensor, outer_scale: Tensor, breakpoint: Tensor, low: int, high: int
    ) -> None:
        super().__init__()
        self.register_buffer("inner_scale", inner_scale)
        self.register_buffer("outer_scale", outer_scale)
        self.register_buffer("breakpoint", breakpoint)
        self.low, self.high = low, high
        self.code_bits = bits + 1

    @classmethod
    def fit(
        cls, bits: int, magnitude: float, breakpoint: float, unsigned: bool, full_range: bool
    ) -> "TwoScaleQuantizer":
        """Grids of the same codes up to `breakpoint` and up to `magnitude`, on either side of 0 unless `unsigned`."""
        ends = torch.tensor([breakpoint, magnitude], dtype=torch.float64)
        starts = torch.zeros_like(ends) if unsigned else -ends
        # Fitted together, so that both are signed or neither is.
        scales, _, low, high = uniform_grid(starts, ends, bits, symmetric=True, full_range=full_range)
        return cls(bits, scales[0].clone(), scales[1].clone(), ends[0].float(), low, high)

    def encode(self, x: Tensor) -> Codes:
        encoded = encode_two_scale(x, self.inner_scale, self.outer_scale, self.breakpoint, self.low, self.high)
        return Codes(*encoded)

    def decode(self, encoded: Codes) -> Tensor:
        return decode_two_scale(_regions(encoded), self.inner_scale, self.outer_scale)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.low * self.outer_scale, self.high * self.outer_scale

    def scale_bits(self) -> int:
        return 3 * 32

    def forward(self, x: Tensor) -> Tensor:
        inner, outer, breakpoint = self.inner_scale.item(), self.outer_scale.item(), self.breakpoint.item()

        def simulate(x: Tensor) -> Tensor:
            fine = x.mul(1 / inner).round_().clamp_(self.low, self.high).mul_(inner)
            coarse = x.mul(1 / outer).round_().clamp_(self.low, self.high).mul_(outer)
            return torch.where(x.abs() < breakpoint, fine, coarse)

        return _in_blocks(x, simulate)

    def extra_repr(self) -> str:
        return f"below {self.breakpoint.item():.4g} of {self.bounds()[1].item():.4g}"
