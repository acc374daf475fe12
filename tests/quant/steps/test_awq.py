"""AWQ takes the best scale of its grid, and its clipping never makes the output worse than no clipping."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from protquant.quant.evidence import Evidence, Gatherer
from protquant.quant.formats import DInt, Format, PiecewiseLinear, Uniform
from protquant.quant.steps import AWQ, AWQClip
from protquant.quant.transforms import LinkLayers, TransformedLinear
from protquant.topology import Link

CHANNEL = Uniform(4, symmetric=False, granularity="channel")
GROUP = Uniform(3, symmetric=False, granularity="group", group_size=16)
LINK = Link(("a", "b"))


def brute_force(model: nn.ModuleDict, rows: torch.Tensor, form: Format, number: int) -> tuple[int, torch.Tensor]:
    """Which ratio of the grid leaves the smallest error of the outputs themselves, and its scales."""
    errors, scales = [], []
    for i in range(number):
        scale = rows.abs().mean(0) ** (i / number)
        scale = scale.clamp(min=1e-4)
        scale = scale / torch.sqrt(scale.max() * scale.min())
        error = 0.0
        for layer in model.values():
            weight = layer.weight.detach()
            quantized = form.for_weight(weight * scale)(weight * scale) / scale
            error += ((rows @ quantized.T - rows @ weight.T) ** 2).sum(1).mean().item()
        errors.append(error)
        scales.append(scale)
    best = min(range(number), key=lambda i: errors[i])
    return best, scales[best]


@pytest.mark.parametrize("form", [CHANNEL, GROUP, DInt(4)], ids=lambda form: form.label)
def test_the_scale_is_the_best_of_the_grid(readers, outlying_rows, outlying: Evidence, assigned, form: Format):
    best, scale = brute_force(readers, outlying_rows, form, 20)
    assert 0 < best < 19
    model = copy.deepcopy(readers)
    AWQ().apply(LinkLayers(model, LINK), outlying, assigned(form, None))
    for layer in model.values():
        assert isinstance(layer, TransformedLinear)
        assert torch.allclose(layer.transforms[0].scale, scale)


def test_layers_whose_weights_stay_in_float_are_left_alone(readers, outlying: Evidence, assigned):
    AWQ().apply(LinkLayers(readers, LINK), outlying, assigned(None, Uniform(8)))
    assert type(readers["a"]) is nn.Linear


def test_alike_channels_are_not_scaled(readers, outlying: Evidence, assigned):
    alike = replace(outlying, absolute_mean=torch.full_like(outlying.absolute_mean, 0.2))
    AWQ().apply(LinkLayers(readers, LINK), alike, assigned(CHANNEL, None))
    assert type(readers["a"]) is nn.Linear


def parts(weight: torch.Tensor, rows: torch.Tensor, form: Format) -> torch.Tensor:
    """What each group of channels adds to each output: (rows, out, groups)."""
    size = getattr(form, "group_size", None) or weight.shape[1]
    pairs = zip(rows.split(size, 1), weight.split(size, 1), strict=True)
    return torch.stack([x @ w.T for x, w in pairs], dim=-1)


@pytest.mark.parametrize(
    "form",
    [CHANNEL, GROUP, replace(GROUP, group_size=20), DInt(3), Uniform(4), PiecewiseLinear(3)],
    ids=lambda form: form.label,
)
def test_clipping_never_makes_the_share_of_a_group_worse(readers, outlying_rows, outlying: Evidence, form: Format):
    weight = readers["a"].weight.detach()
    clipped = AWQClip().fit(weight, form, outlying)
    exact = parts(weight, outlying_rows, form)
    plain, ours = (
        (parts(quantizer(weight), outlying_rows, form) - exact).square().mean(0)
        for quantizer in (form.for_weight(weight), clipped)
    )
    if getattr(form, "granularity", "tensor") == "tensor":  # one choice for all
        plain, ours = plain.sum(), ours.sum()
    assert (ours <= plain * (1 + 1e-9)).all()
    assert ours.sum() < 0.98 * plain.sum()


def test_a_range_keeps_at_least_55_percent(readers, outlying: Evidence):
    weight = readers["a"].weight.detach()
    form = Uniform(2, granularity="channel")
    shares = AWQClip().fit(weight, form, outlying).scale / form.for_weight(weight).scale
    assert shares.min() >= 0.55 - 1e-6
    assert shares.max() <= 1 + 1e-6
    tried = torch.arange(10) / 20
    assert ((1 - shares - tried).abs().amin(1) < 1e-6).all()


def test_queries_and_keys_keep_their_range():
    assert AWQClip().is_for("layers.0.attn.v_proj")
    assert not AWQClip().is_for("lm.layers.0.attn.q_proj")
    assert not AWQClip().is_for("layers.0.attn.k_proj")
    assert not AWQClip().is_for("trunk.blocks.0.single_attn.qkv_proj")
    assert not AWQClip().is_for("trunk.structure_module.ipa.kv_point_proj")
    assert AWQClip(skip=()).is_for("layers.0.attn.q_proj")
    assert not AWQClip(skip="*.ffn.*").is_for("layers.0.ffn.up_proj")


def test_clipping_in_half_precision_is_that_of_float32():
    torch.manual_seed(0)
    gatherer = Gatherer()
    gatherer.update(300 * torch.randn(200, 24))  # second moments that float16 does not hold
    evidence = gatherer.evidence()
    weight, form = torch.randn(8, 24).half(), Uniform(3, granularity="channel")
    fitted, expected = (AWQClip().fit(each, form, evidence) for each in (weight, weight.float()))
    assert torch.equal(fitted.scale, expected.scale)
    assert not torch.equal(expected.scale, form.for_weight(weight.float()).scale)
