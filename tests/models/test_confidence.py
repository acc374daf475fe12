"""Interface TM-scores against two other programs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from foldmetrics.metrics import pair_metrics
from foldmetrics.models import Prediction as TheirPrediction
from foldmetrics.models import Token
from torch import Tensor
from transformers.models.esm.openfold_utils import compute_tm

from protquant.models.confidence import predicted_aligned_error, predicted_interface_tm

LENGTHS = (22, 40, 19)
BINS = 64


@pytest.fixture(scope="module")
def chain_index() -> Tensor:
    """Three chains with linkers of five residues between them, and padding behind."""
    parts = [torch.full((length,), number) for number, length in enumerate(LENGTHS)]
    linker, padding = torch.full((5,), -1), torch.full((7,), -1)
    return torch.cat([parts[0], linker, parts[1], linker, parts[2], padding])


def random_logits(length: int, scale: float) -> Tensor:
    return scale * torch.randn(length, length, BINS, generator=torch.Generator().manual_seed(0))


def best_alignment_of_transformers(logits: Tensor, chains: Tensor) -> float:
    """The best score of one residue's alignment over the other chains, by a function that knows no chains."""
    length = len(logits)
    scores = [
        compute_tm(logits[i].expand(length, length, BINS), residue_weights=(chains != chains[i]).float())
        for i in range(length)
    ]
    return float(torch.stack(scores).max())


def test_it_is_what_transformers_gives_alignment_by_alignment(chain_index: Tensor) -> None:
    logits = random_logits(len(chain_index), 3.0)
    whole, pairs = predicted_interface_tm(logits, chain_index)
    real = chain_index >= 0
    expected = best_alignment_of_transformers(logits[real][:, real], chain_index[real])
    assert float(whole) == pytest.approx(expected, abs=1e-5)
    for a in range(3):
        alone = chain_index == a
        assert float(pairs[a, a]) == pytest.approx(float(compute_tm(logits[alone][:, alone])), abs=1e-5)
        for b in range(a + 1, 3):
            both = alone | (chain_index == b)
            expected = best_alignment_of_transformers(logits[both][:, both], chain_index[both])
            assert float(pairs[a, b]) == float(pairs[b, a]) == pytest.approx(expected, abs=1e-5)


def test_pairs_of_chains_are_what_foldmetrics_finds_in_certain_errors(chain_index: Tensor) -> None:
    # foldmetrics has only the mean error of each pair: nothing is lost where all probability is in one bin.
    logits = random_logits(len(chain_index), 1e4)
    _, pairs = predicted_interface_tm(logits, chain_index)
    real = chain_index >= 0
    tokens = [
        Token("ABC"[chain], number, "ALA", "protein", "CB", (0.0, 0.0, 0.0), 90.0, 90.0)
        for number, chain in enumerate(chain_index[real].tolist())
    ]
    pae = predicted_aligned_error(logits[None])[0][real][:, real].numpy()
    theirs = TheirPrediction("x", "other", Path("x"), tokens, pae=pae)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        found = pair_metrics(theirs, "ABC"[a], "ABC"[b])["iptm_pae"]
        assert float(pairs[a, b]) == pytest.approx(found, abs=1e-5)


def test_linkers_and_padding_change_nothing(chain_index: Tensor) -> None:
    logits = random_logits(len(chain_index), 3.0)
    real = chain_index >= 0
    whole, pairs = predicted_interface_tm(logits[real][:, real], chain_index[real])
    between = ~(real[:, None] & real[None, :])
    changed = logits.masked_scatter(between[..., None], torch.full_like(logits, 50.0))
    for each in (logits, changed):
        again, pairs_again = predicted_interface_tm(each, chain_index)
        assert float(again) == pytest.approx(float(whole), abs=1e-6)
        np.testing.assert_allclose(pairs_again, pairs, atol=1e-6)


def test_a_single_chain_has_no_interface() -> None:
    with pytest.raises(ValueError, match="two chains or more, got 1"):
        predicted_interface_tm(random_logits(8, 1.0), torch.zeros(8, dtype=torch.int64))
