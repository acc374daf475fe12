"""The training losses vanish at the truth, and know a hand from its mirror image."""

import numpy as np
import pytest
import torch
from transformers.models.esm.openfold_utils import Rigid, Rotation

from protquant.demo.losses import lddt_ca
from protquant.demo.targets import TargetBatch, collate, make_target
from protquant.models.frame_alignment import frame_aligned_point_error
from protquant.scores import lddt_ca_per_residue
from protquant.structures import load_references


@pytest.fixture(scope="module")
def batch() -> TargetBatch:
    return collate([make_target(reference) for reference in load_references(limit=2)])


def fape(batch: TargetBatch, frames: Rigid, points: torch.Tensor) -> float:
    error = frame_aligned_point_error(frames, points, batch.frames, batch.ca, batch.mask, batch.mask, clamp=1000.0)
    return error.item()


def moved(frames: Rigid, points: torch.Tensor) -> tuple[Rigid, torch.Tensor]:
    turn = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]))[0]
    turn = turn * turn.det().sign()
    shift = torch.tensor([3.0, -8.0, 11.0])
    rotation = turn @ frames.get_rots().get_rot_mats()
    return Rigid(Rotation(rot_mats=rotation), frames.get_trans() @ turn.T + shift), points @ turn.T + shift


def test_fape_is_zero_at_the_truth_wherever_it_lies(batch: TargetBatch):
    # The square root is kept from zero by an epsilon of 1e-4 square angstrom, hence 1e-3 in units of 10 angstrom.
    assert fape(batch, batch.frames, batch.ca) == pytest.approx(1e-3, abs=1e-5)
    assert fape(batch, *moved(batch.frames, batch.ca)) == pytest.approx(1e-3, abs=1e-4)


def test_fape_tells_a_mirror_image(batch: TargetBatch):
    mirror = torch.tensor([1.0, 1.0, -1.0])
    n, ca, c = (batch.atoms[..., :3, :] * mirror).unbind(-2)
    assert fape(batch, Rigid.from_3_points(2 * ca - c, ca, n), ca) > 0.5


def test_lddt_of_the_losses_is_that_of_the_scores():
    target = collate([make_target(load_references(limit=1)[0])])
    noisy = target.ca + torch.randn(target.ca.shape, generator=torch.Generator().manual_seed(0))
    ours = lddt_ca(noisy, target.ca, target.mask)[0].numpy()
    theirs = lddt_ca_per_residue(noisy[0].numpy(), target.ca[0].numpy())
    assert np.abs(ours - theirs).max() < 2e-3


def test_exchangeable_atoms_carry_no_loss():
    target = make_target(next(r for r in load_references(limit=5) if "D" in r.sequence))
    aspartate = (target.aatype == 3).nonzero()[0, 0]
    # N CA C O CB CG OD1 OD2
    assert target.atom_mask[aspartate].tolist()[:8] == [True] * 6 + [False] * 2
