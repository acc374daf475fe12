"""Learned grids begin with those of their formats, and have the slopes of their formulas."""

import pytest
import torch

from protquant.quant import Uniform
from protquant.quant.tuning import LearnedClipping, LearnedRange


@pytest.mark.parametrize("symmetric", [True, False])
def test_slopes_are_those_of_the_formula_with_a_straight_through_rounding(symmetric: bool):
    x = (3 * torch.randn(50, generator=torch.Generator().manual_seed(0))).requires_grad_()
    form = Uniform(4, symmetric=symmetric)
    learned = LearnedRange(form.fit(torch.tensor(-2.0), torch.tensor(4.0)))
    weights = torch.arange(50.0)
    (learned(x) * weights).sum().backward()
    ours = [x.grad, *(parameter.grad for parameter in learned.parameters())]
    x.grad = None
    factor = torch.ones((), requires_grad=True)
    shift = torch.zeros((), requires_grad=True)
    scale = learned.scale * factor
    zero = 0.0 if symmetric else learned.zero_point + shift * (learned.high - learned.low)
    codes = x / scale
    codes = codes + (codes.round() - codes).detach() + zero
    (((codes.clamp(learned.low, learned.high) - zero) * scale) * weights).sum().backward()
    theirs = [x.grad, factor.grad] + ([] if symmetric else [shift.grad])
    for own, other in zip(ours, theirs, strict=True):
        assert torch.allclose(own, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_clipping_begins_with_the_grid_of_the_format_less_two_percent(granularity):
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    form = Uniform(4, symmetric=False, granularity=granularity, group_size=4 if granularity == "group" else None)
    clipping = LearnedClipping(form, weight)
    frozen = clipping.freeze(weight)
    assert torch.equal(frozen(weight), clipping(weight))
    assert frozen.scale.shape == form.for_weight(weight).scale.shape
    assert torch.allclose(frozen.scale / form.for_weight(weight).scale, torch.tensor(4.0).sigmoid(), atol=1e-5)
