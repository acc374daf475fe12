"""Choose the range of a format with frozen scales from statistics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.quant.lengths import LengthBin, parse_lengths
from protquant.quant.observers import Statistics
from protquant.quant.settings import Count, Settings

__all__ = ["RANGE_RULES", "Calibration", "calibrated_range"]

RangeRule = Literal["minmax", "percentile", "topk_median", "mse"]
RANGE_RULES: tuple[RangeRule, ...] = get_args(RangeRule)


@dataclass(frozen=True)
class Calibration(Settings):
    """Rule that chooses frozen ranges.

    Attributes
    ----------
    range : str
        `minmax`: all values. `percentile`: the central part of the sample. `topk_median`: the median of the `top_k`
        most extreme values of each sequence, averaged over sequences (Peng et al. 2023). `mse`: the min-max range times
        the factor in (0, 1] with the least error on the sample.
    top_k : int
        Number of extreme values per sequence, for `topk_median`.
    percentile : float
        Upper percentile, in (50, 100], for `percentile`: 99.9 leaves out 0.1 % on either side.
    lengths : str or None
        Lengths of the sequences to calibrate on, for ranges and steps. `128-256`: 128 to 255 residues.
        `0-128,128-256,256-`, or `bins` for the bins of `protquant.quant.lengths`: lengths in any bin, with one frozen
        range for each bin; an input uses the range of the bin nearest to its length. None: all lengths.
    """

    range: RangeRule = "topk_median"
    top_k: Count = 2
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    lengths: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.bins

    @property
    def bins(self) -> tuple[LengthBin, ...]:
        """The bins of `lengths`; empty if all sequences are used alike."""
        return () if self.lengths is None else parse_lengths(self.lengths)


def _topk_median(values: tuple[Tensor, ...], top_k: int) -> float:
    # quantile, not median: torch's median of an even number is the lower middle, not the mean of the two.
    return sum(v[:top_k].double().quantile(0.5).item() for v in values) / len(values)


def calibrated_range(
    statistics: Statistics, calibration: Calibration, error: Callable[[float, float], float]
) -> tuple[float, float]:
    """Return the range (low, high) of a site, low <= high.

    Parameters
    ----------
    error : callable
        Returns the error of a format with a range; used only by the rule `mse`.

    Raises
    ------
    ProtquantError
        If `top_k` is more than the `depth` of the calibration.
    """
    low, high = statistics.minimum, statistics.maximum
    if calibration.range == "percentile":
        share = calibration.percentile / 100
        low, high = statistics.sample.double().quantile(torch.tensor([1 - share, share]).double()).tolist()
    elif calibration.range == "topk_median":
        depth = max(len(values) for values in statistics.lowest)
        if calibration.top_k > depth:
            raise ProtquantError(
                f"top_k {calibration.top_k} is more than the {depth} extreme values that calibration kept per "
                "sequence; calibrate with a greater depth"
            )
        low, high = (
            _topk_median(statistics.lowest, calibration.top_k),
            _topk_median(statistics.highest, calibration.top_k),
        )
    elif calibration.range == "mse":
        factors = [i / 50 for i in range(1, 51)]
        best = min(factors, key=lambda factor: error(low * factor, high * factor))
        low, high = low * best, high * best
    return low, high
