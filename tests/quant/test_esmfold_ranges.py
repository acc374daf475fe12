"""Piecewise linear against uniform quantization on ranges such as the real ESMFold has."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from observed import observe
from torch import Tensor

from protquant.quant import Calibration, Format, PiecewiseLinear, Statistics, Uniform

RANGES = json.loads((Path(__file__).parent / "data" / "esmfold_norm_input_ranges.json").read_text())["ffn_norm_input"]
CHANNELS, TOKENS = 2560, 256


def massive_channels(low: float, high: float) -> Tensor:
    """A bulk of spread 1.5, and six channels of ESM-2's kind that are large in every token, up to the range's ends."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TOKENS, CHANNELS, generator=generator) * 1.5
    x *= torch.exp(0.3 * torch.randn(CHANNELS, generator=generator))
    share = 0.6 + 0.4 * torch.rand(TOKENS, 2, generator=generator)
    x[:, 10], x[:, 20] = high * share[:, 0], low * share[:, 1]
    for i, channel in enumerate((30, 40, 50, 60)):
        x[:, channel] += high * 0.2 / (i + 1) * torch.rand(TOKENS, generator=generator)
    return x.clamp(low, high)


def massive_tokens(low: float, high: float) -> Tensor:
    """A bulk of spread 1.5, and two channels that are large in one token of thirty."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TOKENS, CHANNELS, generator=generator) * 1.5
    share = 0.6 + 0.4 * torch.rand(TOKENS, 2, generator=generator)
    x[::30, 10], x[::30, 20] = high * share[::30, 0], low * share[::30, 1]
    return x.clamp(low, high)


def error_after_norm(form: Format, x: Tensor, statistics: Statistics, rule: str = "minmax") -> float:
    y = form.for_activation(statistics, Calibration(rule))(x)
    return (F.layer_norm(x, (CHANNELS,)) - F.layer_norm(y, (CHANNELS,))).square().mean().item()


def best_uniform(x: Tensor, statistics: Statistics) -> float:
    """Of the per-tensor formats, symmetric and affine, with every rule for their range."""
    return min(
        error_after_norm(Uniform(8, symmetric), x, statistics, rule)
        for symmetric in (True, False)
        for rule in ("minmax", "percentile", "topk_median", "mse")
    )


@pytest.mark.parametrize("layer", RANGES)
@pytest.mark.parametrize("inputs", [massive_channels, massive_tokens])
def test_asymmetric_piecewise_errs_a_twentieth_of_the_best_uniform_after_layer_norm(layer, inputs):
    x = inputs(*RANGES[layer])
    statistics = observe(*x.split(32))
    assert error_after_norm(PiecewiseLinear(8), x, statistics) <= best_uniform(x, statistics) / 20


def test_on_layer_29_even_a_scale_per_token_is_a_hundred_times_worse():
    # With channels that are large in every token; where tokens differ, a scale of their own serves them well.
    x = massive_channels(*RANGES["29"])
    statistics = observe(*x.split(32))
    per_token = error_after_norm(Uniform(8, granularity="token"), x, statistics)
    assert error_after_norm(PiecewiseLinear(8), x, statistics) < per_token / 100


@pytest.mark.parametrize("layer", RANGES)
def test_breakpoints_on_each_side_and_searched_beat_the_symmetric_ones(layer):
    x = massive_channels(*RANGES[layer])
    statistics = observe(*x.split(32))
    default = error_after_norm(PiecewiseLinear(8), x, statistics)
    for mode in ("overlapping", "non_overlapping", "ptq4protein"):
        assert default < error_after_norm(PiecewiseLinear(8, mode, "numeric"), x, statistics) / 2
    assert default < error_after_norm(PiecewiseLinear(8, "asymmetric", "numeric"), x, statistics)
