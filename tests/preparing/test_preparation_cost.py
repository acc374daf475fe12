"""What is told before a checkpoint is quantized."""

import pytest

from protquant.checkpoints import skeleton
from protquant.models import ESMFoldConfig
from protquant.preparing import preparation_cost as module
from protquant.preparing.preparation_cost import preparation_cost
from protquant.preparing.time_estimate import TimeEstimate
from protquant.quant import load_recipe

SEQUENCES = ["MKTAYIAKQR" * 10, "MKTAYIAKQR" * 20]


@pytest.fixture(autouse=True)
def _known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    # A second for each encoder layer, half a second for each pass through a block.
    times = TimeEstimate(ESMFoldConfig(), (1.0, 0.0), (0.5 / 100**2, 0.0), (0.0, 0.0))
    monkeypatch.setattr(module, "measure_times", lambda *_: times)
    monkeypatch.setattr(module, "_seconds_per_weight", lambda _recipe, _device: 1e-8)


def test_a_recipe_without_ranges_takes_the_time_of_rounding_and_the_memory_of_blocks():
    cost = preparation_cost(skeleton("esmfold_v1"), load_recipe("w8a8-token"), SEQUENCES)
    assert cost.bytes == pytest.approx(3.54e9, rel=0.01)  # measured on disk: 3.541
    assert cost.seconds == pytest.approx(35.2, rel=0.01)
    assert "3.5" in str(cost) and "about 1 min, and" in str(cost)


def test_calibration_runs_the_float_model_twice():
    cost = preparation_cost(skeleton("esmfold_v1"), load_recipe("w8a8-int8"), SEQUENCES)
    passes = sum(36 * 1.0 + 2 * 48 * 0.5 * (n / 100) ** 2 for n in (100, 200))
    assert cost.seconds == pytest.approx(35.2 + 2 * passes, rel=0.01)
    token = preparation_cost(skeleton("esmfold_v1"), load_recipe("w8a8-token"), SEQUENCES)
    assert token.peak < cost.peak


def test_steps_are_named_for_their_time_and_counted_for_their_second_moments():
    cost = preparation_cost(skeleton("esmfold_v1"), load_recipe("w4a8-int4"), SEQUENCES)
    assert cost.bytes == pytest.approx(1.79e9, rel=0.03)  # measured on disk: 1.790
    assert "and the time of gptq" in str(cost)
    assert cost.peak > 4 * 4 * 10240**2


def test_of_a_language_model_calibration_is_only_named():
    cost = preparation_cost(skeleton("esm2_t6_8M"), load_recipe("w8a8-int8"), SEQUENCES)
    assert cost.beside == ("calibration",)
    assert cost.seconds == pytest.approx(7.4e6 * 1e-8, rel=0.1)
