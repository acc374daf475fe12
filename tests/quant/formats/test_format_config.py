import pytest
import torch

from protquant.errors import ProtquantError
from protquant.quant import (
    BFloat16,
    Calibration,
    DInt,
    Float8,
    PiecewiseLinear,
    TokenOutlier,
    Uniform,
    format_from_config,
)


@pytest.mark.parametrize(
    "form",
    [
        Uniform(4, granularity="group", group_size=32),
        Uniform(8, symmetric=False),
        PiecewiseLinear(6, "ptq4protein", "numeric", live=True),
        BFloat16(),
        DInt(3, "group", 32, special=0.25),
        TokenOutlier(4, 2),
        Float8("e5m2", "token"),
    ],
)
def test_a_format_survives_the_way_through_its_config(form):
    assert format_from_config(form.to_config()) == form


def test_no_format_is_float():
    assert format_from_config(None) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"format": "unifrom"}, "did you mean uniform"),
        ({"format": "uniform", "bit": 8}, "did you mean bits"),
        ({"bits": 8}, "'format'"),
        ("uniform", "'format'"),
        ({"format": "uniform", "symmetric": "no"}, "true or false"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(ProtquantError, match=message):
        format_from_config(config)


def test_bfloat16_is_torchs_rounding():
    x = torch.randn(100)
    quantizer = BFloat16().for_activation(None, Calibration())
    assert torch.equal(quantizer(x), x.bfloat16().float())
    assert torch.equal(quantizer.decode(quantizer.encode(x)), quantizer(x))
    assert quantizer.code_bits == 16
