"""Bias correction leaves no mean error of the outputs."""

import pytest
import torch
from torch import nn

from protquant.quant import ActivationQuantizer, QuantizedLinear, Uniform
from protquant.quant.evidence import Evidence
from protquant.quant.steps import BiasCorrection

WEIGHT = Uniform(3, granularity="channel")


@pytest.mark.parametrize("read", [None, Uniform(4, symmetric=False)], ids=["weights", "weights and inputs"])
@pytest.mark.parametrize("name", ["a", "b"], ids=["with bias", "without"])
def test_the_mean_output_is_that_of_the_float_layer(readers, outlying_rows, outlying: Evidence, name: str, read):
    layer: nn.Linear = readers[name]
    weight = layer.weight.detach().clone()
    quantizer = None if read is None else ActivationQuantizer("site", read.fit(*outlying_rows.aminmax()))
    quantized = QuantizedLinear(layer, WEIGHT.for_weight(weight), quantizer)
    exact = layer(outlying_rows).mean(0)
    before = (quantized(outlying_rows).mean(0) - exact).abs().max()
    BiasCorrection().correct(quantized, weight, outlying)
    after = (quantized(outlying_rows).mean(0) - exact).abs().max()
    assert before > 1e-2
    assert after < 1e-9 * before + 1e-9
    assert quantized.bias is not None
    assert "bias" in dict(quantized.named_parameters())


def test_the_float_layer_keeps_its_bias(readers, outlying: Evidence):
    before = readers["a"].bias.detach().clone()
    weight = readers["a"].weight.detach()
    BiasCorrection().correct(QuantizedLinear(readers["a"], WEIGHT.for_weight(weight)), weight, outlying)
    assert torch.equal(readers["a"].bias, before)


def test_nothing_changes_where_nothing_is_lost(readers, outlying: Evidence):
    weight = readers["b"].weight.detach()
    form = Uniform(16, granularity="channel")
    quantized = QuantizedLinear(readers["b"], form.for_weight(weight))
    BiasCorrection().correct(quantized, weight, outlying)
    assert quantized.bias.abs().max() < 1e-2
