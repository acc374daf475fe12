from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from observed import observe

from protquant.errors import ProtquantError
from protquant.quant import Calibration, Moments, PiecewiseLinear, Uniform
from protquant.quant.formats import TailedGrid, TwoScaleQuantizer, optimal_breakpoint

MODES = ("overlapping", "non_overlapping", "ptq4protein", "asymmetric")
TAILED = ("non_overlapping", "asymmetric")
RULES = ("numeric", "closed_form_gaussian", "closed_form_laplace", "search")
VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60).map(torch.tensor)
MINMAX = Calibration("minmax")


def fit(form: PiecewiseLinear, x: torch.Tensor):
    return form.for_activation(observe(x), MINMAX)


def mean_squared_error(quantizer, x: torch.Tensor) -> float:
    return (quantizer(x) - x).square().mean().item()


@given(VALUES, st.sampled_from(MODES), st.sampled_from(RULES), st.integers(2, 8))
def test_simulating_is_encoding_and_decoding(x, mode, rule, bits):
    quantizer = fit(PiecewiseLinear(bits, mode, rule), x)
    encoded = quantizer.encode(x)
    tolerance = 1e-6 * x.abs().max().item()
    torch.testing.assert_close(quantizer(x), quantizer.decode(encoded), rtol=1e-5, atol=tolerance)


@given(VALUES, st.sampled_from(MODES), st.sampled_from(RULES), st.integers(2, 8))
def test_a_code_and_its_region_fit_one_bit_more(x, mode, rule, bits):
    form = PiecewiseLinear(bits, mode, rule)
    codes, regions = fit(form, x).encode(x)[:2]
    in_tail = (regions != 0) if mode in TAILED else torch.zeros_like(regions, dtype=torch.bool)
    assert codes[~in_tail].int().unique().numel() <= 2**bits
    if in_tail.any():  # Side, and a code of bits - 1: the same width.
        assert codes[in_tail].min() >= 0
        assert codes[in_tail].max() <= 2 ** (bits - 1) - 1
    assert form.code_bits == bits + 1


@given(VALUES, st.sampled_from(TAILED), st.sampled_from(RULES), st.integers(2, 8))
def test_values_move_half_a_step_of_their_piece_at_most(x, mode, rule, bits):
    quantizer = fit(PiecewiseLinear(bits, mode, rule), x)
    grid = quantizer.grid
    left, right = grid.breakpoints
    step = torch.full_like(x, grid.scale)
    for outside, scale in ((x < left, grid.left_scale), (x > right, grid.right_scale)):
        if scale:
            step = torch.where(outside, scale, step)
    # Where a side has no tail, the middle ends within half a step of the extreme.
    assert ((quantizer(x) - x).abs() <= 0.501 * step + 1e-5 * x.abs().max()).all()


@given(VALUES, st.sampled_from(TAILED), st.sampled_from(RULES))
def test_tailed_modes_are_monotone_idempotent_and_keep_zero(x, mode, rule):
    quantizer = fit(PiecewiseLinear(8, mode, rule), x)
    once = quantizer(x.sort().values)
    tolerance = 1e-5 * x.abs().max().item()
    torch.testing.assert_close(quantizer(once), once, rtol=1e-5, atol=tolerance)
    assert (once.diff() >= -tolerance).all()
    assert quantizer(torch.zeros(1)).item() == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_piecewise_errs_less_than_uniform_of_the_same_bits_on_a_normal_distribution(mode, bits):
    x = torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
    uniform = Uniform(bits).for_activation(observe(x), MINMAX)
    for rule in RULES:
        assert mean_squared_error(fit(PiecewiseLinear(bits, mode, rule), x), x) < mean_squared_error(uniform, x) * 0.8


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_the_error_made_is_at_most_nine_sixteenths_of_uniforms(bits):
    # Lemma 2 of Fang et al. 2020 on a sample: 4.2 standard deviations, so that neither rounding nor clipping rules.
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    uniform = Uniform(bits).for_activation(observe(x), MINMAX)
    piecewise = fit(PiecewiseLinear(bits, "non_overlapping", "numeric"), x)
    assert mean_squared_error(piecewise, x) <= 9 / 16 * mean_squared_error(uniform, x)


@pytest.mark.parametrize("mode", MODES)
def test_searching_is_no_worse_than_any_other_rule(mode):
    x = torch.distributions.StudentT(3.0)
    torch.manual_seed(0)
    x = x.sample((16_000,))
    errors = {rule: mean_squared_error(fit(PiecewiseLinear(8, mode, rule), x), x) for rule in RULES}
    assert errors["search"] == min(errors.values())


def test_sides_of_different_reach_get_breakpoints_of_their_own():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, generator=generator)
    x = torch.where(x > 0, x * 10, x)
    left, right = fit(PiecewiseLinear(8, "asymmetric", "numeric"), x).grid.breakpoints
    assert -left == pytest.approx(optimal_breakpoint(-x.min().item()), rel=0.05)
    assert right == pytest.approx(10 * optimal_breakpoint(x.max().item() / 10), rel=0.05)


def test_a_few_massive_values_do_not_move_a_searched_breakpoint_out():
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 900.0
    numeric, search = (
        fit(PiecewiseLinear(8, "asymmetric", rule), x).grid.breakpoints[1] for rule in ("numeric", "search")
    )
    assert search < 10
    assert numeric > 50


def test_ptq4protein_takes_its_breakpoint_from_the_extreme_and_its_coarse_grid_from_the_range():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    form = PiecewiseLinear(8, "ptq4protein", "numeric")
    quantizer = form.fit(-3.0, 2.0, Moments.of(x))
    p = optimal_breakpoint(x.abs().max().item() / x.std().item()) * x.std().item()
    assert isinstance(quantizer, TwoScaleQuantizer)
    assert quantizer.breakpoint.item() == pytest.approx(p, rel=1e-3)
    assert quantizer.inner_scale.item() == pytest.approx(2 * p / 255, rel=1e-3)
    assert quantizer.outer_scale.item() == pytest.approx(2 * 3 / 255)
    assert quantizer.codes.tolist() == [-128, 127]


@pytest.mark.parametrize("mode", MODES)
def test_a_live_breakpoint_follows_the_input_and_a_frozen_one_does_not(mode):
    torch.manual_seed(0)
    x = torch.randn(20_000)
    live, frozen = (fit(PiecewiseLinear(8, mode, "numeric", live=live), x) for live in (True, False))
    torch.testing.assert_close(live(x), frozen(x), rtol=1e-4, atol=1e-4)
    narrow = x / 100
    inside = narrow[narrow.abs() < narrow.std()]  # well below any breakpoint of the narrow input
    grid = live.freeze(narrow)
    assert mean_squared_error(grid, inside) < mean_squared_error(frozen, inside) / 100
    assert torch.equal(grid(narrow), live(narrow))
    assert frozen.freeze(narrow) is frozen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_a_constant_is_nearly_kept(mode, rule, value):
    x = torch.full((7, 3), value)
    torch.testing.assert_close(fit(PiecewiseLinear(8, mode, rule), x)(x), x, rtol=0.01, atol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", RULES)
def test_one_sided_values_use_no_code_for_the_empty_side(mode, rule):
    x = torch.rand(5000, generator=torch.Generator().manual_seed(0)).pow(8)
    codes = fit(PiecewiseLinear(8, mode, rule), x).encode(x).codes
    assert codes.min() == 0
    assert codes.max() > 128  # signed codes of 8 bits could not be
    mirrored = fit(PiecewiseLinear(8, "asymmetric", rule), -x)
    assert mirrored(torch.ones(1)).item() == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(70_000,), (3, 300, 100), (0, 4)])
def test_large_tensors_are_the_same_as_their_parts(mode, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    quantizer = fit(PiecewiseLinear(8, mode, "numeric"), torch.randn(1000))
    whole = quantizer(x)
    assert whole.shape == x.shape
    parts = [quantizer(part) for part in x.reshape(-1).split(1000)]
    assert torch.equal(whole.reshape(-1), torch.cat(parts))


@pytest.mark.parametrize("mode", MODES)
def test_dtype_stays_and_gradients_do_not_break_it(mode):
    quantizer = fit(PiecewiseLinear(8, mode, "numeric"), torch.randn(1000))
    assert quantizer(torch.randn(5, dtype=torch.bfloat16)).dtype == torch.bfloat16
    x = torch.randn(5, requires_grad=True)
    assert torch.equal(quantizer(x).detach(), quantizer(x.detach()))


@given(st.floats(0.01, 4.99), st.floats(0.01, 9.99))
def test_the_grid_ends_at_the_range(left, right):
    low, high = TailedGrid.asymmetric(8, (-5.0, 10.0), (-left, right)).ends
    step = (left + right) / 255
    assert low == pytest.approx(-5.0, abs=step)
    assert high == pytest.approx(10.0, abs=step)


def test_levels_of_the_paper_come_out():
    # 3 bits: middle of 7 levels on [-3, 3], tails of 4 on [3, 9], the breakpoint counted once: 2^4 - 3 in all.
    grid = TailedGrid.symmetric(3, 9.0, 3.0, unsigned=False)
    levels = grid.simulate(torch.linspace(-10, 10, 10_001)).unique()
    assert levels.tolist() == [-9, -7, -5, -3, -2, -1, 0, 1, 2, 3, 5, 7, 9]
    assert all(a < b for a, b in pairwise(levels.tolist()))


@pytest.mark.parametrize(
    "settings",
    [{"bits": 1}, {"mode": "three"}, {"breakpoint": "best"}, {"breakpoint": "search", "live": True}],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ProtquantError):
        PiecewiseLinear(**settings)


def test_weights_can_be_piecewise_too():
    weight = torch.randn(300, 100, generator=torch.Generator().manual_seed(0)) / 10
    quantizer = PiecewiseLinear(4, "non_overlapping", "search").for_weight(weight)
    assert mean_squared_error(quantizer, weight) < mean_squared_error(Uniform(4).for_weight(weight), weight) / 2
