"""U^T U is the inverse of the damped moments, had from moments or from the vectors themselves."""

import itertools
from dataclasses import replace

import pytest
import torch

from protquant.quant.evidence import Evidence, Gatherer
from protquant.quant.formats import Uniform
from protquant.quant.steps import GPTQ
from protquant.quant.steps import inverse_factor as module
from protquant.quant.steps.inverse_factor import inverse_factor

CHANNELS, VECTORS = 96, 20


@pytest.fixture(params=[False, True], ids=["", "with channels that were never seen"])
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Of few vectors whose channels differ in size by far, as a protein language model's do."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(VECTORS, CHANNELS, generator=generator).double()
    x *= torch.randn(CHANNELS, generator=generator).mul(2).exp()
    if request.param:
        x[:, [0, 5, 95]] = 0
    gatherer = Gatherer()
    for part in x.split(7):
        gatherer.update(part)
    found = gatherer.evidence()
    assert found is not None
    return found


def of_moments(evidence: Evidence) -> Evidence:
    return replace(evidence, moments=evidence.gram, vectors=())


def test_few_vectors_of_many_channels_are_kept_themselves(evidence: Evidence):
    assert evidence.moments is None
    assert [len(each) for each in evidence.vectors] == [7, 7, 6]
    assert torch.allclose(evidence.square_mean, evidence.gram.diagonal())
    gatherer = Gatherer()
    for part in torch.cat(evidence.vectors).repeat(2, 1).split(7):
        gatherer.update(part)
    more = gatherer.evidence()
    assert more is not None
    assert more.vectors == ()
    assert torch.allclose(more.gram, evidence.gram)


@pytest.mark.parametrize("block", [1, 17, 96])
@pytest.mark.parametrize("at_once", [5, 32, 512])
def test_rows_are_those_of_the_factor_of_the_inverse(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, block: int, at_once: int
):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(1))
    damped = evidence.gram[order[:, None], order].clone()
    diagonal = damped.diagonal()
    mean = diagonal.mean()
    diagonal += 0.1 * mean + (diagonal <= 0) * mean
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    for each in (evidence, of_moments(evidence)):
        factor = inverse_factor(each, order, 0.1, torch.float64)
        for start, end in itertools.pairwise([*range(0, CHANNELS, block), CHANNELS]):
            assert torch.allclose(factor.rows(start, end), expected[start:end, start:], rtol=1e-6, atol=1e-12)


def test_codes_are_the_same_from_either(evidence: Evidence):
    weight = torch.randn(24, CHANNELS, generator=torch.Generator().manual_seed(2)).double()
    quantizer = Uniform(4, symmetric=False, granularity="channel").for_weight(weight)
    ours, theirs = (GPTQ().round(weight, quantizer, each).codes for each in (evidence, of_moments(evidence)))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, quantizer.encode(weight).codes)
