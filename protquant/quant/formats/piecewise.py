"""Piecewise linear formats: fine steps where most values are, coarse ones out to the extremes (Fang et al. 2020)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.quant.formats.base import Codes, Format, Quantizer, StaticQuantizer, register_format
from protquant.quant.formats.breakpoint import closed_form_breakpoint, optimal_breakpoint, search_ratio
from protquant.quant.formats.tailed import TailedGrid, TailedQuantizer
from protquant.quant.formats.two_scale import TwoScaleQuantizer
from protquant.quant.formats.uniform import Bits
from protquant.quant.observers import Moments, Statistics
from protquant.quant.ranges import Calibration, calibrated_range

__all__ = ["LivePiecewiseQuantizer", "PiecewiseLinear"]

Mode = Literal["overlapping", "non_overlapping", "ptq4protein", "asymmetric"]
BreakpointRule = Literal["numeric", "closed_form_gaussian", "closed_form_laplace", "search"]

_SAMPLE_SIZE = 2**14
_MAX_ROUNDS = 3
# The search ends after a round that leaves more than this share of the error.
_WORTHWHILE = 0.98


@register_format("piecewise_linear")
@dataclass(frozen=True)
class PiecewiseLinear(Format):
    """Two resolutions per tensor, at the cost of one bit: an element takes `bits` + 1 bits.

    Attributes
    ----------
    bits : int
        Width of a code within the middle.
    mode : str
        `non_overlapping`: middle of 2^bits - 1 levels on [-p, p], tails of 2^(bits - 1) levels on [-m, -p] and
        [p, m]; 2^(bits + 1) - 3 different levels. `asymmetric`: the same with a middle [p1, p2] and a range [m1, m2],
        where each side has its own breakpoint; 0 is on the grid, and breakpoints move to the nearest grid point.
        `overlapping`: 2^bits - 1 levels on [-p, p], and as many on [-m, m] for values outside of [-p, p].
        `ptq4protein`: as `overlapping`, but with 2^bits - 1 steps, and with the breakpoint of the non-overlapping
        objective for the largest magnitude in calibration, whatever the range (the `pwlq-3` of Peng et al. 2023). In
        symmetric modes a tensor without negative values uses all codes for values from 0 on.
    breakpoint : str
        `numeric`: the optimum for a (half-)normal distribution of the same spread; `closed_form_gaussian` and
        `closed_form_laplace`: closed-form fits, good for extremes of 3 to 10 standard deviations; `search`: the least
        squared error on the sample, which assumes no distribution and suits heavy tails.
    live : bool
        Whether the breakpoint is computed for each input, as in PTQ4Protein's code, instead of being frozen.
    """

    bits: Bits = 8
    mode: Mode = "asymmetric"
    breakpoint: BreakpointRule = "search"
    live: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.live and self.breakpoint == "search":
            raise ProtquantError("a live breakpoint cannot be searched; say 'numeric' or a closed form")

    @property
    def label(self) -> str:
        return f"piecewise {self.bits} {self.mode} ({self.breakpoint}{', live' if self.live else ''})"

    @property
    def code_bits(self) -> int:
        return self.bits + 1

    @property
    def num_levels(self) -> int:
        # A middle and two tails that share its ends; or two grids that share 0, some of whose levels no value reaches.
        middle = 2**self.bits - int(self.mode != "asymmetric")
        if self.mode in ("non_overlapping", "asymmetric"):
            return int(middle + 2 * (2 ** (self.bits - 1) - 1))
        return int(2 * (2**self.bits - int(self.mode == "overlapping")) - 1)

    @classmethod
    def variants(cls) -> tuple[Format, ...]:
        return (*(cls(4, mode) for mode in get_args(Mode)), cls(8))

    def fit(self, low: float, high: float, moments: Moments, sample: Tensor | None = None) -> StaticQuantizer:
        """Return the quantizer of a range.

        Parameters
        ----------
        low, high : float
            The range; it is widened to contain 0.
        moments : Moments
            Spreads, from which breakpoints are computed.
        sample : Tensor, optional
            Values to search breakpoints on; without a sample the rule `search` uses the numeric breakpoints.
        """
        return self.at(low, high, *self.breakpoints(low, high, moments, sample))

    def at(self, low: float, high: float, left: float, right: float) -> StaticQuantizer:
        """Return the quantizer of a range with breakpoints at -left and right; symmetric modes use only `right`."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.mode == "asymmetric":
            return TailedQuantizer(self.bits, TailedGrid.asymmetric(self.bits, (low, high), (-left, right)))
        magnitude, unsigned = max(-low, high), low >= 0
        if self.mode == "non_overlapping":
            return TailedQuantizer(self.bits, TailedGrid.symmetric(self.bits, magnitude, right, unsigned))
        return TwoScaleQuantizer(self.bits, magnitude, right, unsigned, full_range=self.mode == "ptq4protein")

    def breakpoints(
        self, low: float, high: float, moments: Moments, sample: Tensor | None = None
    ) -> tuple[float, float]:
        """Return the magnitudes of the left and the right breakpoint; see `fit` for the parameters."""
        low, high = min(low, 0.0), max(high, 0.0)
        searched = None if sample is None or self.breakpoint != "search" else sample[:_SAMPLE_SIZE]
        if self.mode == "asymmetric":
            left = self._unsearched_breakpoint(-low, moments.negative_rms, -moments.minimum)
            right = self._unsearched_breakpoint(high, moments.positive_rms, moments.maximum)
            return (left, right) if searched is None else self._search_sides(low, high, left, right, searched)
        magnitude = max(-low, high)
        spread = moments.std if self.mode == "ptq4protein" else moments.rms
        p = self._unsearched_breakpoint(magnitude, spread, max(-moments.minimum, moments.maximum))
        if searched is not None and magnitude > 0:

            def error(ratio: float) -> float:
                return _error(self.at(low, high, magnitude * ratio, magnitude * ratio), searched)

            p = magnitude * search_ratio(error, p / magnitude)
        return p, p

    def for_weight(self, weight: Tensor) -> StaticQuantizer:
        values = weight.detach().float().flatten()
        moments = Moments.of(values)
        # A seeded random sample: every n-th value would come from few columns.
        generator = torch.Generator().manual_seed(0)
        drawn = values
        if len(values) > _SAMPLE_SIZE:
            drawn = values[torch.randint(len(values), (_SAMPLE_SIZE,), generator=generator).to(values.device)]
        return self.fit(moments.minimum, moments.maximum, moments, drawn)

    def for_activation(self, statistics: Statistics | None, calibration: Calibration) -> Quantizer:
        if statistics is None:
            raise ProtquantError("a frozen range needs calibration")
        sample, moments = statistics.sample, statistics.moments
        if len(sample) > _SAMPLE_SIZE:
            generator = torch.Generator().manual_seed(0)
            sample = sample[torch.randperm(len(sample), generator=generator)[:_SAMPLE_SIZE]]
        low, high = calibrated_range(statistics, calibration, lambda a, b: _error(self.fit(a, b, moments), sample))
        if self.live:
            return LivePiecewiseQuantizer(self, low, high)
        return self.fit(low, high, moments, sample)

    def _unsearched_breakpoint(self, end: float, spread: float, extreme: float) -> float:
        """Return the breakpoint for a spread: at most `end`, the end of the range; `extreme` is from calibration."""
        if end <= 0:
            return 0.0
        # The optimum is for the range of the tails; PTQ4Protein and live breakpoints use the extreme instead.
        m = max(extreme, 0.0) if self.live or self.mode == "ptq4protein" else end
        spread = max(spread, 1e-12)
        overlapping = self.mode == "overlapping"
        if self.breakpoint == "closed_form_gaussian":
            p = closed_form_breakpoint(m / spread, "gaussian")
        elif self.breakpoint == "closed_form_laplace":
            p = closed_form_breakpoint(m / spread, "laplace")
        else:
            p = optimal_breakpoint(m / spread, "gaussian", overlapping)
        return min(p * spread, end)

    def _search_sides(self, low: float, high: float, left: float, right: float, sample: Tensor) -> tuple[float, float]:
        """Return the breakpoints of least error. Both sides share the step of the middle, so the search alternates."""

        def error(left: float, right: float) -> float:
            return _error(TailedGrid.asymmetric(self.bits, (low, high), (-left, right)).simulate, sample)

        def error_of_right(left: float) -> Callable[[float], float]:
            return lambda ratio: error(left, high * ratio)

        def error_of_left(right: float) -> Callable[[float], float]:
            return lambda ratio: error(-low * ratio, right)

        least = error(left, right)
        for _ in range(_MAX_ROUNDS):
            if high > 0:
                right = high * search_ratio(error_of_right(left), right / high)
            if low < 0:
                left = -low * search_ratio(error_of_left(right), left / -low)
            before, least = least, error(left, right)
            if least > before * _WORTHWHILE or low == 0 or high == 0:
                break
        return left, right


class LivePiecewiseQuantizer(Quantizer):
    """A frozen range with breakpoints that are computed from the spread and extremes of each input."""

    bounds_of_range: Tensor
    form: PiecewiseLinear

    def __init__(self, form: PiecewiseLinear, low: float, high: float) -> None:
        super().__init__()
        self.form = form
        self.code_bits = form.code_bits
        self.register_buffer("bounds_of_range", torch.tensor([low, high]))

    def freeze(self, x: Tensor) -> StaticQuantizer:
        return self._at(self._breakpoints(x)).to(x.device)

    def encode(self, x: Tensor) -> Codes:
        breakpoints = self._breakpoints(x)
        return self._at(breakpoints).to(x.device).encode(x)._replace(scales=breakpoints)

    def decode(self, encoded: Codes) -> Tensor:
        if encoded.scales is None:
            raise ValueError("codes of a live piecewise linear format come with breakpoints")
        return self._at(encoded.scales).to(encoded.codes.device).decode(encoded)

    def _breakpoints(self, x: Tensor) -> Tensor:
        """Return the breakpoints as float32, shape (2,), or (1,) if both sides have the same."""
        low, high = self.bounds_of_range.tolist()
        both = self.form.breakpoints(low, high, Moments.of(x)) if x.numel() else (0.0, 0.0)
        return torch.tensor(both[: 2 if self.form.mode == "asymmetric" else 1])

    def _at(self, breakpoints: Tensor) -> StaticQuantizer:
        ends = breakpoints.tolist()
        low, high = self.bounds_of_range.tolist()
        return self.form.at(low, high, ends[0], ends[-1])

    def dynamic_bits(self, _shape: tuple[int, ...]) -> int:
        return 64 if self.form.mode == "asymmetric" else 32

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x
        y: Tensor = self.freeze(x)(x)
        return y


def _error(quantizer: Callable[[Tensor], Tensor], sample: Tensor) -> float:
    difference = quantizer(sample).sub_(sample)
    return difference.square_().mean().item()
