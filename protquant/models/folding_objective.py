"""Distance of a folding model's output from the float model's output on the same input; it needs no labels."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from protquant.errors import ProtquantError, suggestion
from protquant.models.folding_output import ESMFoldOutput
from protquant.models.frame_alignment import ROOT_FLOOR, frame_aligned_point_error

__all__ = ["folding_objective"]

_CLAMP = 10.0  # angstrom, as in training with FAPE
_DISTOGRAM_WEIGHT = 0.3  # relative to FAPE, as in Jumper et al. 2021, supplement 1.9


def _relative_error(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean() / theirs.square().mean().clamp(min=1e-12)


def folding_objective(output: ESMFoldOutput, answer: ESMFoldOutput, loss: str = "hidden") -> Float[Tensor, ""]:
    """Return the distance between two predictions of one sequence; 0 if they are equal.

    Parameters
    ----------
    loss : str
        `hidden`: sum of the mean squared errors of single and pair after the trunk, each divided by the mean square of
        `answer`. `structure`: FAPE of backbone frames and C-alphas, plus 0.3 times the Kullback-Leibler divergence of
        the distogram; it does not depend on the pose of the prediction.

    Raises
    ------
    ProtquantError
        If `loss` is unknown.
    """
    if loss == "hidden":
        return _relative_error(output.single, answer.single) + _relative_error(output.pair, answer.pair)
    if loss != "structure":
        raise ProtquantError(f"a folding model has no loss {loss!r}; {suggestion(loss, ('hidden', 'structure'))}")
    mask = answer.mask
    frames, true_frames = output.frames[-1], answer.frames[-1]
    error = frame_aligned_point_error(
        frames, frames.get_trans(), true_frames, true_frames.get_trans(), mask, mask, _CLAMP
    )
    logits, true_logits = (side.distogram_logits.float().log_softmax(-1) for side in (output, answer))
    divergence = F.kl_div(logits, true_logits, reduction="none", log_target=True).sum(-1)
    valid = mask[:, :, None] & mask[:, None, :]
    return error - ROOT_FLOOR / 10 + _DISTOGRAM_WEIGHT * (divergence * valid).sum() / valid.sum()
