"""A fine middle with coarse tails at its ends: the grid as plain numbers, and its quantizer."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from protquant.kernels.reference import PiecewiseCodes, Tails, decode_tailed, encode_tailed
from protquant.quant.formats.base import Codes, StaticQuantizer
from protquant.quant.formats.blockwise import blockwise

__all__ = ["TailedGrid", "TailedQuantizer"]


class TailedGrid(NamedTuple):
    """Steps and codes of the middle and the tails.

    Attributes
    ----------
    scale, zero_point, low, high
        The middle: its step, the code of 0, and its smallest and largest code.
    left_scale, right_scale
        Steps of the tails; 0 means no tail.
    tail_high
        The largest code of a tail; the smallest is 0, at the end of the middle.
    """

    scale: float
    zero_point: int
    low: int
    high: int
    left_scale: float
    right_scale: float
    tail_high: int

    @classmethod
    def asymmetric(cls, bits: int, span: tuple[float, float], breakpoints: tuple[float, float]) -> "TailedGrid":
        """Return an affine middle between `breakpoints`, shifted to have 0 on the grid, and tails up to `span`."""
        scale = _step((breakpoints[1] - breakpoints[0]) / (2**bits - 1))
        return cls._with_tails(bits, scale, round(-breakpoints[0] / scale), span, 0, 2**bits - 1)

    @classmethod
    def symmetric(cls, bits: int, magnitude: float, breakpoint: float, unsigned: bool) -> "TailedGrid":
        """Return a middle on [-breakpoint, breakpoint], or [0, breakpoint] if `unsigned`, and tails to `magnitude`."""
        low, high = (0, 2**bits - 1) if unsigned else (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
        span = (0.0 if unsigned else -magnitude, magnitude)
        return cls._with_tails(bits, _step(breakpoint / high), 0, span, low, high)

    @classmethod
    def _with_tails(
        cls, bits: int, scale: float, zero_point: int, span: tuple[float, float], low: int, high: int
    ) -> "TailedGrid":
        tail_high: int = 2 ** (bits - 1) - 1
        lengths = (low - zero_point) * scale - span[0], span[1] - (high - zero_point) * scale
        # A tail shorter than half a step of the middle is left out: the end of the middle has no larger error there.
        left, right = (_step(length / tail_high) if length > scale / 2 else 0.0 for length in lengths)
        return cls(scale, zero_point, low, high, left, right, tail_high)

    @property
    def breakpoints(self) -> tuple[float, float]:
        """Ends of the middle."""
        return (self.low - self.zero_point) * self.scale, (self.high - self.zero_point) * self.scale

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the whole grid."""
        left, right = self.breakpoints
        return left - self.tail_high * self.left_scale, right + self.tail_high * self.right_scale

    def simulate(self, x: Tensor) -> Tensor:
        """Return the decoded codes of `x`, float32."""
        # Each piece saturates at its ends, and tails are 0 inside of the middle. So the result is the sum of the three
        # pieces; `where` would cost more than a piece on a CPU.
        left, right = self.breakpoints
        y = x.mul(1 / self.scale).round_().clamp_(self.low - self.zero_point, self.high - self.zero_point)
        y.mul_(self.scale)
        if self.right_scale:
            tail = x.sub(right).mul_(1 / self.right_scale).round_().clamp_(0, self.tail_high)
            y.add_(tail, alpha=self.right_scale)
        if self.left_scale:
            tail = x.sub(left).mul_(1 / self.left_scale).round_().clamp_(-self.tail_high, 0)
            y.add_(tail, alpha=self.left_scale)
        return y


def _step(step: float) -> float:
    """Return the step rounded to float32; 1 if the range has only zeros, or values that float32 flushes to zero."""
    return float(np.float32(step)) if step > torch.finfo(torch.float32).tiny else 1.0


class TailedQuantizer(StaticQuantizer):
    """Quantizer of a `TailedGrid`, whose numbers are buffers, so that they are saved with a model."""

    steps: Tensor
    codes: Tensor

    def __init__(self, bits: int, grid: TailedGrid) -> None:
        super().__init__()
        self.code_bits = bits + 1
        self.register_buffer("steps", torch.tensor([grid.scale, grid.left_scale, grid.right_scale]))
        middle = [grid.zero_point, grid.low, grid.high, grid.tail_high]
        self.register_buffer("codes", torch.tensor(middle, dtype=torch.int32))

    @property
    def grid(self) -> TailedGrid:
        """The grid as plain numbers."""
        scale, left_scale, right_scale = self.steps.tolist()
        zero_point, low, high, tail_high = self.codes.tolist()
        return TailedGrid(scale, zero_point, low, high, left_scale, right_scale, tail_high)

    def _pieces(self) -> tuple[Tensor, Tensor, int, int, Tails]:
        grid = self.grid
        left = self.steps[1] if grid.left_scale else None
        right = self.steps[2] if grid.right_scale else None
        return self.steps[0], self.codes[0], grid.low, grid.high, Tails(left, right, grid.tail_high)

    def encode(self, x: Tensor) -> Codes:
        return Codes(*encode_tailed(x, *self._pieces()))

    def decode(self, encoded: Codes) -> Tensor:
        if encoded.regions is None:
            raise ValueError("codes of a piecewise linear format come with regions")
        return decode_tailed(PiecewiseCodes(encoded.codes, encoded.regions), *self._pieces())

    def bounds(self) -> tuple[Tensor, Tensor]:
        left, right = self.grid.ends
        return self.steps.new_tensor(left), self.steps.new_tensor(right)

    def levels(self) -> Tensor:
        grid = self.grid
        middle = (torch.arange(grid.low, grid.high + 1, device=self.steps.device) - grid.zero_point) * grid.scale
        tail = torch.arange(1, grid.tail_high + 1, device=self.steps.device)
        left = grid.breakpoints[0] - tail.flip(0) * grid.left_scale if grid.left_scale else middle[:0]
        right = grid.breakpoints[1] + tail * grid.right_scale if grid.right_scale else middle[:0]
        return torch.cat((left, middle, right))

    def scale_bits(self) -> int:
        return 3 * 32 + self.code_bits - 1

    def forward(self, x: Tensor) -> Tensor:
        return blockwise(x, self.grid.simulate)

    def extra_repr(self) -> str:
        (left, right), (low, high) = self.grid.breakpoints, self.grid.ends
        return f"middle [{left:.4g}, {right:.4g}] of [{low:.4g}, {high:.4g}]"
