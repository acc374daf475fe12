"""Losses of a folding model (Jumper et al. 2021, supplement 1.9)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from protquant.demo.targets import TargetBatch
from protquant.models.confidence import PLDDT_BINS
from protquant.models.esmfold import DISTOGRAM_BINS, ESMFoldOutput
from protquant.models.frame_alignment import aligned_error, frame_aligned_point_error

__all__ = ["confidence_loss", "distogram_loss", "lddt_ca", "pose_loss", "structure_loss"]

_EPSILON = 1e-4
_SAMPLED_ROWS = 24


def structure_loss(output: ESMFoldOutput, batch: TargetBatch, clamp: float) -> Float[Tensor, ""]:
    """Return backbone FAPE of every layer of the structure module plus all-atom FAPE in backbone frames of the last."""
    mask = batch.mask
    layers = [
        frame_aligned_point_error(frames, frames.get_trans(), batch.frames, batch.ca, mask, mask, clamp)
        for frames in output.frames
    ]
    # For side chains, a sample of frames is enough and keeps the tensor small.
    sample = torch.randperm(mask.shape[1])[:_SAMPLED_ROWS]
    atoms = frame_aligned_point_error(
        output.frames[-1][:, sample],
        output.positions14.flatten(1, 2),
        batch.frames[:, sample],
        batch.atoms.flatten(1, 2),
        mask[:, sample],
        batch.atom_mask.flatten(1, 2),
        clamp,
    )
    norm = output.unnormalized_angles.norm(dim=-1)
    return 0.5 * torch.stack(layers).mean() + 0.5 * layers[-1] + 0.5 * atoms + 0.02 * (norm - 1).abs().mean()


def pose_loss(output: ESMFoldOutput, batch: TargetBatch) -> Float[Tensor, ""]:
    """Return the distance of frames from the target's frames in its stored pose, over all layers.

    FAPE does not depend on the pose, and is flat near the start, where all frames are at the origin. A memorized chain
    may have a fixed pose, and this loss has a gradient everywhere.
    """
    mask = batch.mask
    rotation = batch.frames.get_rots().get_rot_mats()
    per_layer = []
    for frames in output.frames:
        distance = ((frames.get_trans() - batch.ca).square().sum(-1) + _EPSILON).sqrt() / 10
        rotation_error = (frames.get_rots().get_rot_mats() - rotation).square().sum((-1, -2)) / 8
        per_layer.append(((distance + rotation_error) * mask).sum() / mask.sum())
    return torch.stack(per_layer).mean()


def distogram_loss(output: ESMFoldOutput, batch: TargetBatch) -> Float[Tensor, ""]:
    """Return the cross entropy of C-beta distances, in 64 bins from 2.3125 to 21.6875 angstrom, on sampled rows."""
    boundaries = torch.linspace(2.3125, 21.6875, DISTOGRAM_BINS - 1)
    rows = torch.randperm(batch.mask.shape[1])[:_SAMPLED_ROWS]
    bins = torch.bucketize(torch.cdist(batch.cb[:, rows], batch.cb), boundaries)
    loss = F.cross_entropy(output.distogram_logits[:, rows].flatten(0, 2), bins.flatten(), reduction="none")
    valid = batch.mask[:, rows, None] & batch.mask[:, None, :]
    return (loss * valid.flatten()).sum() / valid.sum()


def lddt_ca(
    predicted: Float[Tensor, "b l 3"], true: Float[Tensor, "b l 3"], mask: Bool[Tensor, "b l"]
) -> Float[Tensor, "b l"]:
    """Return the local distance difference test of C-alphas within 15 angstrom, 0-1 (Mariani et al. 2013)."""
    distance, true_distance = torch.cdist(predicted, predicted), torch.cdist(true, true)
    valid = mask[:, :, None] & mask[:, None, :] & ~torch.eye(mask.shape[1], dtype=torch.bool)
    near = (true_distance < 15) & valid
    error = (distance - true_distance).abs()
    preserved = torch.stack([error < tolerance for tolerance in (0.5, 1.0, 2.0, 4.0)]).float().mean(0)
    return (preserved * near).sum(-1) / near.sum(-1).clamp(min=1)


def confidence_loss(output: ESMFoldOutput, batch: TargetBatch) -> Float[Tensor, ""]:
    """Return the cross entropy of pLDDT and predicted aligned error (sampled rows) with the prediction's errors."""
    mask = batch.mask
    rows = torch.randperm(mask.shape[1])[:_SAMPLED_ROWS]
    with torch.no_grad():
        predicted = output.positions14[:, :, 1]
        plddt_bins = (lddt_ca(predicted, batch.ca, mask) * PLDDT_BINS).long().clamp(max=PLDDT_BINS - 1)
        error = aligned_error(output.frames[-1][:, rows], predicted, batch.frames[:, rows], batch.ca)
        error_bins = (error * 2).long().clamp(max=output.pae_logits.shape[-1] - 1)  # bins of half an angstrom
    logits = output.plddt_logits.log_softmax(-1).mean(2)  # all atoms of a residue share its target
    plddt = F.nll_loss(logits.permute(0, 2, 1), plddt_bins, reduction="none")
    pae = F.cross_entropy(output.pae_logits[:, rows].flatten(0, 2), error_bins.flatten(), reduction="none")
    valid = mask[:, rows, None] & mask[:, None, :]
    return (plddt * mask).sum() / mask.sum() + (pae * valid.flatten()).sum() / valid.sum()
