import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.scores import logit_kl, masked_accuracy, negative_log_likelihood, pseudo_perplexity


@pytest.fixture
def logits() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(50, 33)) * 3


@pytest.fixture
def truth() -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, 33, 50)


def test_likelihoods_are_those_of_torch(logits, truth):
    expected = F.cross_entropy(torch.tensor(logits), torch.tensor(truth)).item()
    assert negative_log_likelihood(logits, truth) == pytest.approx(expected, rel=1e-12)
    assert pseudo_perplexity(logits, truth) == pytest.approx(math.exp(expected), rel=1e-12)


def test_the_divergence_is_that_of_torch(logits):
    other = logits + np.random.default_rng(2).normal(size=logits.shape)
    log_p, log_q = (torch.tensor(x).log_softmax(-1) for x in (logits, other))
    expected = F.kl_div(log_q, log_p, log_target=True, reduction="batchmean").item()
    assert logit_kl(other, reference=logits) == pytest.approx(expected, rel=1e-12)


def test_the_divergence_knows_which_is_the_reference(logits):
    flat = np.zeros_like(logits)
    assert logit_kl(logits, reference=flat) != pytest.approx(logit_kl(flat, reference=logits), rel=0.01)


def test_a_model_has_not_diverged_from_itself_whatever_is_added_to_its_logits(logits):
    assert logit_kl(logits + 100, reference=logits) == pytest.approx(0, abs=1e-12)


def test_who_knows_nothing_chooses_among_all_tokens(truth):
    assert pseudo_perplexity(np.zeros((50, 33)), truth) == pytest.approx(33)


def test_who_knows_all_is_always_right(truth):
    certain = 50.0 * np.eye(33)[truth]
    assert masked_accuracy(certain, truth) == 1
    assert pseudo_perplexity(certain, truth) == pytest.approx(1)
    assert masked_accuracy(-certain, truth) == 0


def test_without_positions_there_is_no_score():
    none = np.zeros((0, 33)), np.zeros(0, dtype=int)
    assert math.isnan(masked_accuracy(*none))
    assert math.isnan(pseudo_perplexity(*none))
    assert math.isnan(logit_kl(none[0], none[0]))


def test_logits_that_are_broken_or_do_not_fit_are_refused(logits, truth):
    with pytest.raises(ProtquantError, match="one token a position"):
        masked_accuracy(logits, truth[:-1])
    with pytest.raises(ProtquantError, match="same positions"):
        logit_kl(logits, logits[:-1])
    with pytest.raises(ProtquantError, match=r"must be \(n, v\)"):
        logit_kl(logits[0], logits[0])
    logits[3, 4] = np.nan
    with pytest.raises(ProtquantError, match="not finite"):
        pseudo_perplexity(logits, truth)
