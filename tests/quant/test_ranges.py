import pytest
import torch
from observed import observe

from protquant.errors import ProtquantError
from protquant.quant import Calibration, Uniform, calibrated_range


def no_error(_low: float, _high: float) -> float:
    raise AssertionError("only the rule mse asks for errors")


def test_top_k_median_is_the_median_per_sequence_averaged_over_sequences():
    first, second = torch.tensor([[-9.0, -1.0, 0.0, 4.0, 6.0, 8.0]]), torch.tensor([[-3.0, -2.0, -1.0, 1.0, 2.0, 30.0]])
    seen = observe(first, second, depth=8)
    for top_k, expected in ((1, (-6.0, 19.0)), (2, (-3.75, 11.5)), (3, (-1.5, 4.0))):
        assert calibrated_range(seen, Calibration("topk_median", top_k), no_error) == pytest.approx(expected)


def test_minmax_is_everything_and_a_percentile_its_middle():
    seen = observe(torch.arange(1001.0).view(-1, 7), depth=8)
    assert calibrated_range(seen, Calibration("minmax"), no_error) == (0, 1000)
    assert calibrated_range(seen, Calibration("percentile", percentile=90), no_error) == pytest.approx((100, 900))


def test_the_rule_mse_trades_a_rare_extreme_for_finer_steps():
    x = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 50
    quantizers = [Uniform(4).for_activation(observe(x, depth=8), Calibration(rule)) for rule in ("minmax", "mse")]
    errors = [(quantizer(x) - x).square().mean().item() for quantizer in quantizers]
    assert errors[1] < errors[0] / 3


def test_more_extremes_than_were_kept_cannot_be_asked_for():
    with pytest.raises(ProtquantError, match="greater depth"):
        calibrated_range(observe(torch.randn(10, 10), depth=8), Calibration("topk_median", 9), no_error)


@pytest.mark.parametrize("settings", [{"range": "max"}, {"top_k": 0}, {"percentile": 50}, {"percentile": 101}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ProtquantError):
        Calibration(**settings)
