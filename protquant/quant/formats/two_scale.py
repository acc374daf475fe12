"""Two overlapping grids: a fine one for values nearer to 0 than the breakpoint, a coarse one for all others."""

import torch
from torch import Tensor

from protquant.kernels.reference import PiecewiseCodes, decode_two_scale, encode_two_scale, uniform_grid
from protquant.quant.formats.base import Codes, StaticQuantizer
from protquant.quant.formats.blockwise import blockwise

__all__ = ["TwoScaleQuantizer"]

# Half a step, less rounding: a level that only ties at the breakpoint would reach is not counted.
_HALF = 0.499


class TwoScaleQuantizer(StaticQuantizer):
    """Two grids with the same codes and different steps.

    Parameters
    ----------
    bits : int
        Bits of a code, without its region.
    magnitude, breakpoint : float
        The coarse grid covers [-magnitude, magnitude], the fine one [-breakpoint, breakpoint].
    unsigned : bool
        Whether both grids begin at 0.
    full_range : bool
        See `Uniform`.
    """

    inner_scale: Tensor
    outer_scale: Tensor
    breakpoint: Tensor
    codes: Tensor

    def __init__(self, bits: int, magnitude: float, breakpoint: float, unsigned: bool, full_range: bool) -> None:
        super().__init__()
        ends = torch.tensor([breakpoint, magnitude], dtype=torch.float64)
        starts = torch.zeros_like(ends) if unsigned else -ends
        # Both grids are fitted together, so that both are signed or neither is.
        scales, _, low, high = uniform_grid(starts, ends, bits, symmetric=True, full_range=full_range)
        self.register_buffer("inner_scale", scales[0].clone())
        self.register_buffer("outer_scale", scales[1].clone())
        self.register_buffer("breakpoint", ends[0].float())
        self.register_buffer("codes", torch.tensor([low, high], dtype=torch.int32))
        self.code_bits = bits + 1

    def encode(self, x: Tensor) -> Codes:
        low, high = self.codes.tolist()
        return Codes(*encode_two_scale(x, self.inner_scale, self.outer_scale, self.breakpoint, low, high))

    def decode(self, encoded: Codes) -> Tensor:
        if encoded.regions is None:
            raise ValueError("codes of a piecewise linear format come with regions")
        codes = PiecewiseCodes(encoded.codes, encoded.regions)
        return decode_two_scale(codes, self.inner_scale, self.outer_scale)

    def bounds(self) -> tuple[Tensor, Tensor]:
        low, high = self.codes.tolist()
        return low * self.outer_scale, high * self.outer_scale

    def levels(self) -> Tensor:
        low, high = self.codes.tolist()
        codes = torch.arange(low, high + 1, device=self.inner_scale.device)
        inner, outer = codes * self.inner_scale, codes * self.outer_scale
        # A level stands for values within half a step of it: coarse levels near 0 have no values beyond the breakpoint.
        inner = inner[inner.abs() < self.breakpoint + _HALF * self.inner_scale]
        return torch.cat((inner, outer[outer.abs() > self.breakpoint - _HALF * self.outer_scale])).unique()

    def scale_bits(self) -> int:
        return 3 * 32

    def forward(self, x: Tensor) -> Tensor:
        inner, outer, breakpoint = self.inner_scale.item(), self.outer_scale.item(), self.breakpoint.item()
        low, high = self.codes.tolist()

        def simulate(x: Tensor) -> Tensor:
            fine = x.mul(1 / inner).round_().clamp_(low, high).mul_(inner)
            coarse = x.mul(1 / outer).round_().clamp_(low, high).mul_(outer)
            return torch.where(x.abs() < breakpoint, fine, coarse)

        return blockwise(x, simulate)

    def extra_repr(self) -> str:
        return f"below {self.breakpoint.item():.4g} of {self.bounds()[1].item():.4g}"
