"""GPTQ's outputs err less than those of rounding to nearest, and its values have codes."""

import itertools

import pytest
import torch
from torch import nn

import protquant as pq
from protquant.models import ESM2, tokenize
from protquant.preparing import calibration_sequences
from protquant.quant import Examples, QuantizedLinear, Recipe, quantize
from protquant.quant.evidence import Evidence, Gatherer
from protquant.quant.formats import DInt, Format, PiecewiseLinear, Uniform
from protquant.quant.layerwise import sweep
from protquant.quant.steps import GPTQ
from protquant.topology import find_links

CHANNEL = Uniform(4, symmetric=False, granularity="channel")
FORMATS: list[Format] = [
    CHANNEL,
    Uniform(3, granularity="channel"),
    Uniform(4, symmetric=False, granularity="group", group_size=16),
    Uniform(4, granularity="group", group_size=20),
    Uniform(4),
    DInt(4),
    DInt(3, "group", 16),
    PiecewiseLinear(3, mode="non_overlapping"),
    PiecewiseLinear(3, mode="asymmetric"),
]


def encode(model: ESM2, sequence: str) -> object:
    return model(tokenize([sequence]))


def rounded_by(step: GPTQ, weight: torch.Tensor, quantizer, evidence: Evidence) -> torch.Tensor:
    """What the codes decode to."""
    return quantizer.decode(step.round(weight, quantizer, evidence)).to(weight.dtype)


@pytest.mark.slow
def test_it_beats_rounding_to_nearest_on_every_layer_of_a_trained_model():
    model = pq.load("demo").lm
    groups = [link.readers for link in find_links(model)]
    compared = 0
    for stage in sweep(model, calibration_sequences(limit=6), encode, groups):
        for path, evidence in stage.evidence.items():
            weight = model.get_submodule(path).weight.detach()
            quantizer = CHANNEL.for_weight(weight)
            nearest = evidence.output_error(quantizer(weight) - weight)
            ours = evidence.output_error(rounded_by(GPTQ(), weight, quantizer, evidence) - weight)
            assert ours < 0.9 * nearest, path
            compared += 1
    assert compared == 36


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.label)
@pytest.mark.parametrize("act_order", [True, False])
def test_codes_are_those_of_the_format_and_outputs_err_less(readers, outlying: Evidence, form: Format, act_order: bool):
    weight = readers["a"].weight.detach().float()
    quantizer = form.for_weight(weight)
    codes = GPTQ(act_order=act_order).round(weight, quantizer, outlying)
    assert codes.codes.dtype == quantizer.encode(weight).codes.dtype
    rounded = quantizer.decode(codes)
    nearest = outlying.output_error((quantizer(weight) - weight).double())
    assert outlying.output_error((rounded - weight).double()) < nearest


@pytest.mark.parametrize("act_order", [True, False])
def test_the_result_does_not_depend_on_the_block(readers, outlying: Evidence, act_order: bool):
    weight = readers["a"].weight.detach()
    quantizer = CHANNEL.for_weight(weight)
    results = [rounded_by(GPTQ(block=b, act_order=act_order), weight, quantizer, outlying) for b in (1, 7, 48, 128)]
    assert all(torch.equal(a, b) for a, b in itertools.pairwise(results))


def by_the_paper(weight: torch.Tensor, quantizer, gram: torch.Tensor, damping: float) -> torch.Tensor:
    """Algorithm of optimal brain quantization with a fixed order: the inverse loses a row and a column each time."""
    inverse = torch.linalg.inv(gram + damping * gram.diagonal().mean() * torch.eye(len(gram)).double())
    left, rounded = weight.clone(), torch.empty_like(weight)
    for i in range(weight.shape[1]):
        rounded[:, i] = quantizer(left)[:, i]
        error = (left[:, i] - rounded[:, i]) / inverse[i, i]
        left -= torch.outer(error, inverse[i])
        inverse = inverse - torch.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return rounded


def test_it_is_optimal_brain_quantization_column_by_column(readers, outlying: Evidence):
    weight = readers["b"].weight.detach()
    quantizer = CHANNEL.for_weight(weight)
    ours = rounded_by(GPTQ(act_order=False, damping=0.01, block=16), weight, quantizer, outlying)
    assert torch.allclose(ours, by_the_paper(weight, quantizer, outlying.gram, 0.01))


def test_channels_that_were_never_seen_are_rounded_to_nearest(readers, outlying_rows):
    rows = outlying_rows.clone()
    rows[:, [0, 30]] = 0
    gatherer = Gatherer()
    gatherer.update(rows)
    weight = readers["a"].weight.detach()
    quantizer = CHANNEL.for_weight(weight)
    rounded = rounded_by(GPTQ(), weight, quantizer, gatherer.evidence())
    assert torch.allclose(rounded[:, [0, 30]], quantizer(weight)[:, [0, 30]])
    gatherer = Gatherer()
    gatherer.update(torch.zeros(4, 48))
    assert torch.allclose(rounded_by(GPTQ(), weight, quantizer, gatherer.evidence()), quantizer(weight))


def test_a_model_keeps_the_codes_that_it_was_given(encoder: ESM2, tokens):
    recipe = Recipe(kinds={"linear_weight": CHANNEL.to_config()}, steps=[{"step": "gptq"}], propagate="quantized")
    examples = Examples(tuple(tokens), lambda model, each: model(each))
    quantized, report = quantize(encoder, recipe, examples=examples)
    nearest, _ = quantize(encoder, Recipe(kinds={"linear_weight": CHANNEL.to_config()}))
    for name, layer in quantized.named_modules():
        if isinstance(layer, QuantizedLinear):
            assert torch.equal(layer.weight_quantizer.decode(layer.weight_codes()), layer.weight)
            assert torch.equal(layer.weight_quantizer.scale, nearest.get_submodule(name).weight_quantizer.scale)
            assert not torch.equal(layer.weight, nearest.get_submodule(name).weight)
    assert not any(isinstance(module, nn.Linear) for module in quantized.layers.modules())
    assert {site.bits for site in report.sites if site.kind == "linear_weight" and not site.excluded} == {4}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_gets_the_codes_of_float32(dtype: torch.dtype):
    torch.manual_seed(0)
    rows = torch.randn(200, 24) @ torch.randn(24, 24)
    gatherer = Gatherer()
    gatherer.update(rows)
    evidence = gatherer.evidence()
    weight = torch.randn(8, 24).to(dtype)
    quantizer = Uniform(4, granularity="channel").for_weight(weight.float())
    codes = GPTQ().round(weight, quantizer, evidence)
    assert torch.equal(codes.codes, GPTQ().round(weight.float(), quantizer, evidence).codes)
    rounded = quantizer.decode(codes)
    error, nearest = (evidence.output_error((each - weight).float()) for each in (rounded, quantizer(weight.float())))
    assert error < nearest
