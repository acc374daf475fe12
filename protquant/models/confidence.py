"""Confidence of the model in its prediction: pLDDT, predicted aligned error, pTM [1]_ and ipTM [2]_.

References
----------
.. [1] J. Jumper et al. 2021, "Highly accurate protein structure prediction with AlphaFold", Nature 596, 583;
   supplement 1.9.
.. [2] R. Evans et al. 2021, "Protein complex prediction with AlphaFold-Multimer", bioRxiv 2021.10.04.463034.
.. [3] J. Abramson et al. 2024, "Accurate structure prediction of biomolecular interactions with AlphaFold 3", Nature
   630, 493; supplement 5.9.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.models.esm.openfold_utils import compute_predicted_aligned_error

__all__ = [
    "PLDDT_BINS",
    "ROWS",
    "PLDDTHead",
    "predicted_aligned_error",
    "predicted_interface_tm",
    "predicted_tm",
]

PLDDT_BINS = 50
_ATOMS = 37
_MAX_BIN = 31
ROWS = 32
"""Number of rows of aligned-error logits whose probabilities are in memory at a time."""


class PLDDTHead(nn.Module):
    """Logits of the local distance difference test of every atom, in bins between 0 and 1."""

    def __init__(self, single_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(single_dim)
        # No nonlinearity between the linear layers, as in the released model.
        self.linear_1 = nn.Linear(single_dim, hidden_dim)
        self.linear_2 = nn.Linear(hidden_dim, hidden_dim)
        self.linear_3 = nn.Linear(hidden_dim, _ATOMS * PLDDT_BINS)

    def forward(self, single: Float[Tensor, "b l s"]) -> Float[Tensor, "b l 37 bins"]:
        return self.linear_3(self.linear_2(self.linear_1(self.norm(single)))).unflatten(-1, (_ATOMS, PLDDT_BINS))

    @staticmethod
    def plddt(logits: Float[Tensor, "b l 37 bins"]) -> Float[Tensor, "b l 37"]:
        """Return the expected value, 0-100."""
        centers = (torch.arange(PLDDT_BINS, device=logits.device, dtype=logits.dtype) + 0.5) / PLDDT_BINS
        return 100 * (logits.softmax(-1) @ centers)


def predicted_aligned_error(logits: Float[Tensor, "b l l 64"]) -> Float[Tensor, "b i j"]:
    """Return the expected error in angstrom of residue j if the prediction is aligned on the frame of residue i."""
    bins = logits.shape[-1]
    rows = [
        compute_predicted_aligned_error(part, max_bin=_MAX_BIN, no_bins=bins)["predicted_aligned_error"]
        for part in logits.split(ROWS, dim=1)
    ]
    return torch.cat(rows, dim=1)


def predicted_tm(logits: Float[Tensor, "b l l 64"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, " b"]:
    """Return the predicted TM-score (pTM) over the residues of `mask` (Jumper et al. 2021, eq. 38-40).

    As in `esm-fold`, linkers are included and padding is not.
    """
    length = mask.sum(-1)
    per_bin = _tm_of_bins(logits.shape[-1], length)  # (b, bins)
    rows = [torch.einsum("bijn,bn->bij", part.float().softmax(-1), per_bin) for part in logits.split(ROWS, dim=1)]
    per_pair = torch.cat(rows, dim=1)
    weight = mask.float() / length.clamp(min=1)[:, None]
    per_alignment = torch.einsum("bij,bj->bi", per_pair, weight)
    return per_alignment.masked_fill(~mask, 0.0).amax(-1)


def predicted_interface_tm(
    logits: Float[Tensor, "l l 64"], chain_index: Int[Tensor, " l"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "c c"]]:
    """Return the predicted interface TM-score (ipTM) of a complex of c chains and of each pair of its chains.

    All residues of the chains are included, also unknown ones (`X`); linkers and padding are not. For the complex
    (Evans et al. 2021), the score of an alignment on one residue is the mean over the residues of all other chains, and
    the largest score counts; d0 follows from the number of all residues. For a pair (AlphaFold 3's `chain_pair_iptm`),
    the same is computed for its two chains alone, with the d0 of their residues.

    Parameters
    ----------
    logits : Tensor, shape=(l, l, 64)
        Logits of the aligned error of one complex.
    chain_index : Tensor, dtype=int64, shape=(l,)
        0 for the residues of the first chain, and so on, each chain contiguous; -1 for linkers and padding.

    Returns
    -------
    whole : Tensor, shape=()
        ipTM of the complex, from 0 to 1.
    pairs : Tensor, shape=(c, c)
        ipTM of each pair of chains; the diagonal has the pTM of single chains.

    Raises
    ------
    ValueError
        If there are fewer than two chains.
    """
    count = int(chain_index.max()) + 1
    if count < 2:
        raise ValueError(f"ipTM needs two chains or more, got {count}")
    places = [(chain_index == chain).nonzero()[:, 0] for chain in range(count)]
    chains = [slice(int(place[0]), int(place[-1]) + 1) for place in places]
    lengths = [len(place) for place in places]
    bins, device = logits.shape[-1], logits.device

    of_all = _tm_of_bins(bins, torch.tensor(sum(lengths), device=device))
    best = []
    for aligned, length in zip(chains, lengths, strict=True):
        sums = [_tm_sums(logits[aligned, scored], of_all) for scored in chains if scored != aligned]
        best.append(torch.stack(sums).sum(0).amax() / (sum(lengths) - length))

    pairs = logits.new_zeros(count, count, dtype=torch.float32)
    for a in range(count):
        for b in range(a, count):
            of_pair = _tm_of_bins(bins, torch.tensor(lengths[a] + (lengths[b] if a != b else 0), device=device))
            forward = _tm_sums(logits[chains[a], chains[b]], of_pair).amax() / lengths[b]
            backward = _tm_sums(logits[chains[b], chains[a]], of_pair).amax() / lengths[a]
            pairs[a, b] = pairs[b, a] = torch.maximum(forward, backward)
    return torch.stack(best).amax(), pairs


def _tm_of_bins(bins: int, count: Int[Tensor, "*b"]) -> Float[Tensor, "*b bins"]:
    """Return the term of the TM-score for the error at each bin center, in structures of `count` residues."""
    boundaries = torch.linspace(0, _MAX_BIN, bins - 1, device=count.device)
    step = boundaries[1]
    centers = torch.cat((boundaries, boundaries[-1:] + step)) + step / 2
    d0 = 1.24 * (count.clamp(min=19) - 15).float() ** (1 / 3) - 1.8
    return 1 / (1 + centers.square() / d0.square()[..., None])


def _tm_sums(logits: Float[Tensor, "i j bins"], tm_of_bins: Float[Tensor, " bins"]) -> Float[Tensor, " i"]:
    """Return the sum over residues j of the expected TM-score terms, for each alignment i; few rows at a time."""
    return torch.cat([(part.float().softmax(-1) @ tm_of_bins).sum(-1) for part in logits.split(ROWS)])
