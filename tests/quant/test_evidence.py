"""Evidence is what numpy says of all vectors together, however they came."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protquant.quant.evidence import Gatherer


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_moments_do_not_depend_on_how_vectors_are_cut_into_calls(lengths: list[int], seed: int):
    x = torch.randn(sum(lengths), 5, generator=torch.Generator().manual_seed(seed)).double()
    gatherer = Gatherer()
    for part in x.split(lengths):
        gatherer.update(part[None])
    evidence = gatherer.evidence()
    if not len(x):
        assert evidence is None
        return
    assert evidence is not None
    array = x.numpy()
    assert evidence.count == len(array)
    assert np.allclose(evidence.mean, array.mean(0))
    assert np.allclose(evidence.absolute_mean, np.abs(array).mean(0))
    assert np.allclose(evidence.minimum, array.min(0))
    assert np.allclose(evidence.maximum, array.max(0))
    assert np.allclose(evidence.absolute_maximum, np.abs(array).max(0))
    assert np.allclose(evidence.gram, array.T @ array / len(array))
    assert sorted(map(tuple, evidence.rows.tolist())) == sorted(map(tuple, array.tolist()))


def test_rows_are_a_uniform_sample_of_all_vectors():
    gatherer = Gatherer(num_rows=600)
    for part in torch.arange(6000.0)[:, None].split([100, 4900, 1000]):
        gatherer.update(part)
    evidence = gatherer.evidence()
    assert evidence is not None
    rows = evidence.rows.flatten()
    assert len(rows.unique()) == 600
    # The mean of 600 of 0..5999 without repetition: sd 5999 / sqrt(12) / sqrt(600) * sqrt(0.9) = 67.
    assert rows.mean().item() == pytest.approx(2999.5, abs=4 * 67)
    assert ((rows >= 100) & (rows < 5000)).float().mean().item() == pytest.approx(4900 / 6000, abs=0.06)


def test_output_error_is_the_mean_squared_error_of_the_outputs():
    x, difference = torch.randn(50, 4).double(), torch.randn(3, 4).double()
    gatherer = Gatherer()
    gatherer.update(x)
    evidence = gatherer.evidence()
    assert evidence is not None
    assert evidence.output_error(difference) == pytest.approx((x @ difference.T).square().sum(-1).mean().item())
