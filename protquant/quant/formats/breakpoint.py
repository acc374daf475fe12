r"""Optimal breakpoints of piecewise linear formats: the end of the fine middle.

All quantities are in units of the standard deviation: `m` is the largest magnitude, `p` the breakpoint.
For a density :math:`f` with distribution function :math:`F`, symmetric about 0, the expected squared error is

* tails that begin at the breakpoint: :math:`E(p) \propto (m - p)^2 + m (2p - m) (2F(p) - 1)`,
* a coarse grid that overlaps the middle: :math:`E(p) \propto p^2 (2F(p) - 1) + m^2 (2 - 2F(p))`.

Source: Fang et al. 2020, Eq. 5 and its supplement. The closed form printed there as :math:`p/m` gives :math:`p`.
"""

import math
from collections.abc import Callable
from typing import Literal

from scipy.optimize import brentq

__all__ = ["Distribution", "closed_form_breakpoint", "expected_error", "optimal_breakpoint", "search_ratio"]

Distribution = Literal["gaussian", "laplace"]


def _density(p: float, distribution: Distribution) -> float:
    if distribution == "gaussian":
        return math.exp(-p * p / 2) / math.sqrt(2 * math.pi)
    return math.exp(-math.sqrt(2) * p) / math.sqrt(2)


def _upper_tail(p: float, distribution: Distribution) -> float:
    """Return 1 - F(p) for p >= 0, without cancellation."""
    if distribution == "gaussian":
        return math.erfc(p / math.sqrt(2)) / 2
    return math.exp(-math.sqrt(2) * p) / 2


def expected_error(p: float, m: float, bits: int, distribution: Distribution = "gaussian") -> float:
    """Return the mean squared error of the non-overlapping format at breakpoint `p`; `m / 2` makes it uniform."""
    inside = 1 - 2 * _upper_tail(p, distribution)
    steps: int = 2 ** (bits - 1) - 1
    return ((m - p) ** 2 + m * (2 * p - m) * inside) / (12 * steps * steps)


def optimal_breakpoint(m: float, distribution: Distribution = "gaussian", overlapping: bool = False) -> float:
    """Return the breakpoint of least expected error, a root of its derivative.

    Parameters
    ----------
    m : float
        Largest magnitude, divided by the standard deviation.
    overlapping : bool
        Whether the coarse grid covers the whole range, instead of beginning at the breakpoint.

    Returns
    -------
    float
        In (0, m / 2], or in (0, m] where the grids overlap; 0 where `m` is 0.
    """

    def derivative(p: float) -> float:
        outside, density = _upper_tail(p, distribution), _density(p, distribution)
        if overlapping:
            return 2 * density * (p * p - m * m) + 2 * p * (1 - 2 * outside)
        return p - 2 * m * outside + m * (2 * p - m) * density

    end = m if overlapping else m / 2
    if m <= 0 or derivative(end) <= 0:  # The tail is so short that the error falls up to the end of the interval.
        return max(end, 0.0)
    return float(brentq(derivative, 0.0, end, xtol=1e-12))


def closed_form_breakpoint(m: float, distribution: Distribution = "gaussian") -> float:
    """Return a fit to the non-overlapping optimum, good for `m` in [3, 10], limited to [m / 1000, m / 2]."""
    gaussian = distribution == "gaussian"
    p = math.log(0.86143114 * m + 0.6079011) if gaussian else 0.80304483 * math.sqrt(m) - 0.31667855
    return min(max(p, m / 1000), m / 2)


def search_ratio(error: Callable[[float], float], start: float | None = None) -> float:
    """Return the ratio p / m in (0, 1] of least `error`, by grid searches of step 0.1, 0.01 and 0.001.

    Parameters
    ----------
    error : callable
        Returns the measured error at a ratio, such as the mean squared error on a sample.
    start : float, optional
        A further ratio to try.
    """
    best = (math.inf, 1.0)
    if start is not None:
        best = (error(start), start)
    candidates = [i / 10 for i in range(1, 11)]
    for step in (0.01, 0.001, None):
        best = min([best, *((error(ratio), ratio) for ratio in candidates)])
        if step is not None:
            around = (best[1] + i * step for i in range(-10, 11))
            candidates = [ratio for ratio in around if 0 < ratio <= 1]
    return best[1]
