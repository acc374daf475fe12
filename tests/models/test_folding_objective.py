"""Losses against the float model's own answer: nothing to lose where nothing changed, wherever it lies."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers.models.esm.openfold_utils import Rigid, Rotation

from protquant.errors import ProtquantError
from protquant.models import ESMFold, ESMFoldOutput, encode_complexes, tokenize
from protquant.models.folding_objective import folding_objective

SEQUENCE = "MKTVRQERLKSIVRILERSK"


@pytest.fixture(scope="module")
def answer(esmfold: ESMFold) -> ESMFoldOutput:
    with torch.no_grad():
        return esmfold(encode_complexes([SEQUENCE]), num_recycles=1)


def moved(output: ESMFoldOutput) -> ESMFoldOutput:
    turn = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]))[0]
    turn = turn * turn.det().sign()
    shift = torch.tensor([3.0, -8.0, 11.0])
    frames = [
        Rigid(Rotation(rot_mats=turn @ each.get_rots().get_rot_mats()), each.get_trans() @ turn.T + shift)
        for each in output.frames
    ]
    return replace(output, frames=frames)


@pytest.mark.parametrize("loss", ["hidden", "structure"])
def test_the_float_model_loses_nothing_and_a_perturbed_one_does(esmfold: ESMFold, answer: ESMFoldOutput, loss):
    assert folding_objective(answer, answer, loss).item() == pytest.approx(0, abs=1e-6)
    perturbed = copy.deepcopy(esmfold)
    with torch.no_grad():
        for parameter in perturbed.trunk.blocks.parameters():
            parameter.mul_(1.1)
        output = perturbed(encode_complexes([SEQUENCE]), num_recycles=1)
    assert folding_objective(output, answer, loss).item() > 1e-3


def test_the_structure_loss_does_not_care_where_the_prediction_lies(esmfold: ESMFold, answer: ESMFoldOutput):
    with torch.no_grad():
        other = esmfold(encode_complexes([SEQUENCE]), num_recycles=0)
    here, there = (folding_objective(each, answer, "structure").item() for each in (other, moved(other)))
    assert here > 1e-2
    assert there == pytest.approx(here, rel=1e-4)
    assert folding_objective(moved(answer), answer, "structure").item() == pytest.approx(0, abs=1e-5)


def test_a_distogram_alone_makes_a_loss(answer: ESMFoldOutput):
    flat = replace(answer, distogram_logits=torch.zeros_like(answer.distogram_logits))
    assert folding_objective(flat, answer, "structure").item() > 1e-2


def test_models_have_the_objective_that_fits_them(esmfold: ESMFold, answer: ESMFoldOutput):
    assert esmfold.objective(answer, answer).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        hidden = esmfold.lm(tokenize([SEQUENCE]))
    assert esmfold.lm.objective(hidden, hidden).item() == 0
    with pytest.raises(ProtquantError, match="no loss 'structure'"):
        esmfold.lm.objective(hidden, hidden, "structure")
    with pytest.raises(ProtquantError, match="no loss 'distance'; did you mean structure"):
        folding_objective(answer, answer, "distance")
