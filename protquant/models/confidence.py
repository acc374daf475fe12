"""What the model thinks of its own prediction: pLDDT, predicted aligned error and pTM (Jumper et al. 2021, 1.9)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.models.esm.openfold_utils import compute_predicted_aligned_error

__all__ = ["MAX_ALIGNED_ERROR", "PLDDT_BINS", "ROWS", "PLDDTHead", "predicted_aligned_error", "predicted_tm"]

PLDDT_BINS = 50
_ATOMS = 37
_MAX_BIN = 31
ROWS = 32
"""Rows of the logits of aligned errors whose probabilities are in memory at a time."""
MAX_ALIGNED_ERROR = 31.75  # angstrom, center of the last bin


class PLDDTHead(nn.Module):
    """Logits of the local distance difference test of every atom, in bins between 0 and 1."""

    def __init__(self, single_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(single_dim)
        # Linear on linear, without a nonlinearity: as in the released model.
        self.linear_1 = nn.Linear(single_dim, hidden_dim)
        self.linear_2 = nn.Linear(hidden_dim, hidden_dim)
        self.linear_3 = nn.Linear(hidden_dim, _ATOMS * PLDDT_BINS)

    def forward(self, single: Float[Tensor, "b l s"]) -> Float[Tensor, "b l 37 bins"]:
        return self.linear_3(self.linear_2(self.linear_1(self.norm(single)))).unflatten(-1, (_ATOMS, PLDDT_BINS))

    @staticmethod
    def plddt(logits: Float[Tensor, "b l 37 bins"]) -> Float[Tensor, "b l 37"]:
        """Expected value, 0-100."""
        centers = (torch.arange(PLDDT_BINS, device=logits.device, dtype=logits.dtype) + 0.5) / PLDDT_BINS
        return 100 * (logits.softmax(-1) @ centers)


def predicted_aligned_error(logits: Float[Tensor, "b l l 64"]) -> Float[Tensor, "b i j"]:
    """Expected error, in angstrom, of residue j when the prediction is aligned on the frame of residue i."""
    bins = logits.shape[-1]
    rows = [
        compute_predicted_aligned_error(some, max_bin=_MAX_BIN, no_bins=bins)["predicted_aligned_error"]
        for some in logits.split(ROWS, dim=1)
    ]
    return torch.cat(rows, dim=1)


def predicted_tm(logits: Float[Tensor, "b l l 64"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, " b"]:
    """Predicted TM-score (pTM) over the residues of `mask` (Jumper et al. 2021, eq. 38-40).

    As in `esm-fold`, linkers count and padding does not.
    """
    bins = logits.shape[-1]
    boundaries = torch.linspace(0, _MAX_BIN, bins - 1, device=logits.device)
    step = boundaries[1]
    centers = torch.cat((boundaries, boundaries[-1:] + step)) + step / 2
    length = mask.sum(-1)
    d0 = 1.24 * (length.clamp(min=19) - 15).float() ** (1 / 3) - 1.8
    per_bin = 1 / (1 + centers.square() / d0.square()[:, None])  # (b, bins)
    rows = [torch.einsum("bijn,bn->bij", some.float().softmax(-1), per_bin) for some in logits.split(ROWS, dim=1)]
    per_pair = torch.cat(rows, dim=1)
    weight = mask.float() / length.clamp(min=1)[:, None]
    per_alignment = torch.einsum("bij,bj->bi", per_pair, weight)
    return per_alignment.masked_fill(~mask, 0.0).amax(-1)
