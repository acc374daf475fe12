"""Two layers that read one tensor with outlier channels, and what calibration saw of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from protquant.quant.assignments import Assignment, Assignments
from protquant.quant.evidence import Evidence, Gatherer
from protquant.quant.formats import Format
from protquant.sites import Site


@pytest.fixture(scope="session")
def outlying_rows() -> Tensor:
    """400 vectors of 48 correlated channels of very different size, float64."""
    generator = torch.Generator().manual_seed(4)
    mixed = torch.randn(400, 48, generator=generator) @ torch.randn(48, 48, generator=generator) / 48**0.5
    sizes = torch.randn(48, generator=generator).exp()
    sizes[[3, 20]] *= 30
    return (mixed * sizes + 0.3 * sizes).double()


@pytest.fixture(scope="session")
def outlying(outlying_rows: Tensor) -> Evidence:
    gatherer = Gatherer(len(outlying_rows))
    gatherer.update(outlying_rows)
    evidence = gatherer.evidence()
    assert evidence is not None
    return evidence


@pytest.fixture
def readers() -> nn.ModuleDict:
    """Two layers of 48 inputs, `a` and `b`, float64."""
    generator = torch.Generator().manual_seed(5)
    model = nn.ModuleDict({"a": nn.Linear(48, 16), "b": nn.Linear(48, 8, bias=False)}).double()
    with torch.no_grad():
        for layer in model.values():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def assigned() -> Callable[[Format | None, Format | None], Assignments]:
    """Assignments of the layers of `readers`, from the formats of their weights and inputs."""

    def assign(weight: Format | None, read: Format | None) -> Assignments:
        sites = [(Site(f"{path}.weight", "linear_weight", path), weight) for path in "ab"]
        sites += [(Site(f"{path}.input", "linear_input", path), read) for path in "ab"]
        return Assignments([Assignment(site, form, "test") for site, form in sites])

    return assign
