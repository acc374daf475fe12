import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.quant import Calibration, Float8, Observer

LAYOUTS = {"e4m3fn": (torch.float8_e4m3fn, 448.0, 3), "e5m2": (torch.float8_e5m2, 57_344.0, 2)}
VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60).map(torch.tensor)
layouts = pytest.mark.parametrize("layout", LAYOUTS)


@layouts
def test_levels_are_all_the_finite_values_of_torchs_type(layout):
    dtype, largest, _ = LAYOUTS[layout]
    levels = Float8(layout).fit(torch.tensor(-largest), torch.tensor(1.0)).levels()
    known = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    assert torch.equal(levels, known[known.isfinite()].unique())
    assert len(levels) == Float8(layout).num_levels


@layouts
def test_with_a_scale_of_one_it_is_torchs_cast(layout):
    dtype, largest, _ = LAYOUTS[layout]
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10
    x[0] = largest
    assert torch.equal(Float8(layout).fit(*x.aminmax())(x), x.to(dtype).float())


@layouts
@given(x=VALUES)
def test_the_largest_value_is_kept_and_others_err_by_half_a_unit_in_the_last_place(layout, x):
    dtype, _, mantissa = LAYOUTS[layout]
    quantizer = Float8(layout).fit(*x.aminmax())
    error = (quantizer(x) - x).abs()
    smallest = torch.finfo(dtype).smallest_normal * 2**-mantissa * quantizer.scale
    assert (error <= torch.maximum(x.abs() * 2.0 ** -(mantissa + 1), smallest / 2) * 1.0001).all()
    assert quantizer(x).abs().max().item() == pytest.approx(x.abs().max().item(), rel=1e-6, abs=1e-30)


@layouts
@given(x=VALUES)
def test_quantizing_is_idempotent_and_monotone(layout, x):
    quantizer = Float8(layout).fit(*x.aminmax())
    once = quantizer(x.sort().values)
    assert torch.equal(quantizer(once), once)
    assert (once.diff() >= 0).all()


@layouts
def test_what_is_too_large_saturates(layout):
    quantizer = Float8(layout).fit(torch.tensor(-1.0), torch.tensor(1.0))
    x = torch.tensor([1.06, 100.0, -3e38, float("inf"), float("-inf")])
    torch.testing.assert_close(quantizer(x), torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0]))


def test_rows_of_a_weight_and_tokens_have_scales_of_their_own():
    x = torch.tensor([[1000.0, -3.0], [1e-6, -5e-7]])
    row, token = (
        Float8(granularity="channel").for_weight(x),
        Float8(granularity="token").for_activation(None, Calibration()),
    )
    for quantizer in (row, token):
        torch.testing.assert_close(quantizer(x), x, rtol=2**-4, atol=0)
    assert (Float8().for_weight(x)(x)[1] == 0).all()
    assert token.encode(x).scales.shape == row.scale.shape == (2, 1)
    assert token.tensor_bits((5, 7)) == 5 * 7 * 8 + 5 * 32
    assert row.scale_bits() == 2 * 32


def test_a_frozen_scale_is_that_of_the_calibrated_range():
    observer = Observer("site")
    observer.update(torch.linspace(-2, 1, 32)[None])
    quantizer = Float8().for_activation(observer.statistics(), Calibration("minmax"))
    assert quantizer.scale.item() == pytest.approx(2 / 448)


@pytest.mark.parametrize("settings", [{"layout": "e3m4"}, {"granularity": "group"}, {"granularity": "row"}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ProtquantError):
        Float8(**settings)


def test_granularities_that_do_not_fit_are_refused():
    with pytest.raises(ProtquantError, match="token"):
        Float8(granularity="channel").for_activation(None, Calibration())
    with pytest.raises(ProtquantError, match="channel"):
        Float8(granularity="token").for_weight(torch.randn(2, 2))
