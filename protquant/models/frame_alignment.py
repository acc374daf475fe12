"""Frame-aligned point error (FAPE; Algorithm 28 of Jumper et al. 2021)."""

from jaxtyping import Bool, Float
from torch import Tensor
from transformers.models.esm.openfold_utils import Rigid

__all__ = ["ROOT_FLOOR", "aligned_error", "frame_aligned_point_error"]

_EPSILON = 1e-4
ROOT_FLOOR = _EPSILON**0.5
"""Result of `aligned_error` for a perfect point, in angstrom; a small constant keeps the root above zero."""


def _local(frames: Rigid, points: Float[Tensor, "b p 3"]) -> Float[Tensor, "b f p 3"]:
    """Return the coordinates of every point in every frame."""
    rotation, origin = frames.get_rots().get_rot_mats(), frames.get_trans()
    return (points[:, None] - origin[:, :, None]) @ rotation


def aligned_error(
    frames: Rigid, points: Float[Tensor, "b p 3"], true_frames: Rigid, true_points: Float[Tensor, "b p 3"]
) -> Float[Tensor, "b f p"]:
    """Return, for every frame, the distance of every point from the true point in the true frame; in angstrom."""
    difference = _local(frames, points) - _local(true_frames, true_points)
    return (difference.square().sum(-1) + _EPSILON).sqrt()


def frame_aligned_point_error(
    frames: Rigid,
    points: Float[Tensor, "b p 3"],
    true_frames: Rigid,
    true_points: Float[Tensor, "b p 3"],
    frame_mask: Bool[Tensor, "b f"],
    point_mask: Bool[Tensor, "b p"],
    clamp: float,
) -> Float[Tensor, ""]:
    """Return FAPE in units of 10 angstrom over valid pairs of frame and point; `clamp` is in angstrom."""
    error = aligned_error(frames, points, true_frames, true_points).clamp(max=clamp)
    valid = frame_mask[:, :, None] & point_mask[:, None, :]
    return (error * valid).sum() / valid.sum() / 10
