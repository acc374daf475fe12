import pytest
from hypothesis import given
from hypothesis import strategies as st

from protquant.quant.formats import closed_form_breakpoint, expected_error, optimal_breakpoint, search_ratio

# Roots and fits worked out independently of this package, to the digits given.
GAUSSIAN = [(3, 1.158, 1.161), (4, 1.392, 1.400), (6, 1.755, 1.754), (10, 2.210, 2.222), (20, 2.751, 2.881)]
GAUSSIAN += [(50, 3.338, 3.777)]
LAPLACE = [(3, 1.068, 1.074), (10, 2.202, 2.223), (20, 3.023, 3.275), (50, 4.17, 5.36)]


@pytest.mark.parametrize(("m", "root", "fit"), GAUSSIAN)
def test_gaussian_breakpoints_are_the_known_ones(m, root, fit):
    assert optimal_breakpoint(m) == pytest.approx(root, abs=1e-3)
    assert closed_form_breakpoint(m) == pytest.approx(fit, abs=1e-3)


@pytest.mark.parametrize(("m", "root", "fit"), LAPLACE)
def test_laplace_breakpoints_are_the_known_ones(m, root, fit):
    assert optimal_breakpoint(m, "laplace") == pytest.approx(root, abs=6e-3 if m == 50 else 1e-3)
    assert closed_form_breakpoint(m, "laplace") == pytest.approx(fit, abs=6e-3 if m == 50 else 1e-3)


@given(st.floats(2, 1e4), st.integers(2, 8))
def test_at_its_optimum_piecewise_errs_nine_sixteenths_of_uniform_at_most(m, bits):
    # Lemma 2 of Fang et al. 2020; for m >= 2, below which a normal distribution cut there is no longer one.
    uniform = m**2 / (3 * (2**bits - 1) ** 2)
    # The lemma counts 2^(bits - 1) - 1/2 steps on either side of both formats.
    best = expected_error(optimal_breakpoint(m), m, bits) * (2 ** (bits - 1) - 1) ** 2 / (2 ** (bits - 1) - 0.5) ** 2
    assert best <= 9 / 16 * uniform * 1.0001


@given(st.floats(0.1, 1e4), st.floats(0.001, 0.5), st.sampled_from(["gaussian", "laplace"]))
def test_no_other_breakpoint_is_better_than_the_root(m, ratio, distribution):
    best = expected_error(optimal_breakpoint(m, distribution), m, 8, distribution)
    assert best <= expected_error(ratio * m, m, 8, distribution) * (1 + 1e-9)


@given(st.floats(1e-9, 1e9), st.sampled_from(["gaussian", "laplace"]))
def test_breakpoints_stay_within_the_range(m, distribution):
    assert 0 < optimal_breakpoint(m, distribution) <= m / 2
    assert 0 < optimal_breakpoint(m, distribution, overlapping=True) <= m
    assert 0 < closed_form_breakpoint(m, distribution) <= m / 2


def test_search_finds_the_least_error_to_a_thousandth():
    assert search_ratio(lambda ratio: (ratio - 0.0234) ** 2) == pytest.approx(0.023)
    assert search_ratio(lambda ratio: (ratio - 0.9876) ** 2) == pytest.approx(0.988)


def test_search_keeps_a_start_that_its_grid_misses():
    assert search_ratio(lambda ratio: abs(ratio - 0.12345), start=0.12345) == 0.12345
