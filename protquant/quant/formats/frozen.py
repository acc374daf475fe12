"""Fit one frozen range to an activation."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.quant.formats.base import StaticQuantizer
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration, calibrated_range

__all__ = ["fit_frozen"]

_Quantizer = TypeVar("_Quantizer", bound=StaticQuantizer)


def fit_frozen(
    statistics: Statistics | None, calibration: Calibration, fit: Callable[[Tensor, Tensor], _Quantizer]
) -> _Quantizer:
    """Return `fit(low, high)` for the calibrated range; the rule `mse` also calls `fit` for narrower ranges.

    Raises
    ------
    ProtquantError
        If there are no statistics.
    """
    if statistics is None:
        raise ProtquantError("a frozen scale needs calibration")
    sample = statistics.sample

    def error(low: float, high: float) -> float:
        difference: Tensor = fit(torch.tensor(low), torch.tensor(high))(sample) - sample
        return difference.square().mean().item()

    low, high = calibrated_range(statistics, calibration, error)
    return fit(torch.tensor(low), torch.tensor(high))
