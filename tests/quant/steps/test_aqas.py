"""AQAS takes the scale under which weights and activations together err least."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from protquant.quant.assignments import Assignments
from protquant.quant.evidence import Evidence
from protquant.quant.formats import DInt, Format, Uniform
from protquant.quant.steps import AQAS, AWQ, LinkTransform
from protquant.quant.transforms import LinkLayers, TransformedLinear
from protquant.topology import Link

WEIGHT = Uniform(4, symmetric=False, granularity="channel")
STATIC = Uniform(8, symmetric=False, granularity="tensor")
TOKEN = Uniform(8, granularity="token")
Assign = Callable[[Format | None, Format | None], Assignments]


def scale_of(step: LinkTransform, model: nn.ModuleDict, evidence: Evidence, assignments: Assignments) -> Tensor:
    model = copy.deepcopy(model)
    step.apply(LinkLayers(model, Link(("a", "b"))), evidence, assignments)
    layer = model["a"]
    return layer.transforms[0].scale if isinstance(layer, TransformedLinear) else torch.ones(48).double()


def error(model: nn.ModuleDict, rows: Tensor, scale: Tensor, weight: Format | None, read: Format | None) -> float:
    """Squared error of all outputs, with a static range of all rows."""
    x = rows / scale
    if read is TOKEN:
        x = torch.stack([TOKEN.fit(*row.aminmax())(row) for row in x])
    elif read is not None:
        x = STATIC.fit(*x.aminmax())(x)
    total = 0.0
    for layer in model.values():
        w = layer.weight.detach()
        scaled = w * scale if weight is None else weight.for_weight(w * scale)(w * scale)
        total += (x @ scaled.T - rows @ w.T).square().sum().item()
    return total


CASES = {
    "W4A8": (WEIGHT, STATIC),
    "W4A8 per token": (WEIGHT, TOKEN),
    "dINT4 A8": (DInt(4), STATIC),
    "W4": (WEIGHT, None),
    "A8": (None, STATIC),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("two_exponents", [False, True])
def test_the_choice_is_the_best_of_its_grid(
    readers, outlying_rows, outlying: Evidence, assigned: Assign, case: str, two_exponents: bool
):
    weight, read = CASES[case]
    steps = [i / 10 for i in range(11)]
    pairs = [(a, b) for a in steps for b in steps] if two_exponents else [(0.0, 0.0), *((a, 1 - a) for a in steps)]
    weights = torch.cat([layer.weight.detach() for layer in readers.values()])
    errors = []
    for alpha, beta in pairs:
        scale = outlying_rows.abs().amax(0) ** alpha / weights.abs().amax(0) ** beta
        scale = scale / torch.sqrt(scale.max() * scale.min())
        errors.append(error(readers, outlying_rows, scale, weight, read))
    step = AQAS(grid=10, two_exponents=two_exponents)
    chosen = error(readers, outlying_rows, scale_of(step, readers, outlying, assigned(weight, read)), weight, read)
    assert chosen == pytest.approx(min(errors), rel=1e-3)
    assert chosen < errors[0]


@pytest.mark.parametrize("case", ["W4A8", "dINT4 A8"])
def test_its_objective_is_below_that_of_awqs_choice(
    readers, outlying_rows, outlying: Evidence, assigned: Assign, case: str
):
    weight, read = CASES[case]
    ours, theirs = (
        error(readers, outlying_rows, scale_of(step, readers, outlying, assigned(weight, read)), weight, read)
        for step in (AQAS(), AWQ())
    )
    assert ours < theirs


def test_layers_in_float_are_left_alone(readers, outlying: Evidence, assigned: Assign):
    assert torch.equal(scale_of(AQAS(grid=2), readers, outlying, assigned(None, None)), torch.ones(48).double())
