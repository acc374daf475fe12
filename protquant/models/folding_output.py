"""The output of ESMFold.

Letters in shapes: b batch, i j l residues, s channels of the single, c channels of the pair.
"""

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float
from torch import Tensor
from transformers.models.esm.openfold_utils import Rigid

from protquant.models.confidence import PLDDTHead, predicted_aligned_error, predicted_tm

__all__ = ["ESMFoldOutput"]


@dataclass
class ESMFoldOutput:
    """A batch of predictions; coordinates in angstrom.

    Attributes
    ----------
    positions : Tensor, shape=(b, l, 37, 3)
        Atoms in the order of `residue_constants.atom_types`.
    positions14 : Tensor, shape=(b, l, 14, 3)
        The same atoms in the order of `residue_constants.restype_name_to_atom14_names`.
    atom_mask : Tensor, dtype=bool, shape=(b, l, 37)
        True for atoms of the residue type; False for linkers and padding.
    mask : Tensor, dtype=bool, shape=(b, l)
        False for padding.
    plddt_logits, pae_logits, distogram_logits, lm_logits : Tensor
        Logits over 50 bins, 64 bins, 64 bins and 23 residue tokens.
    single, pair : Tensor
        Representations after the trunk.
    frames : list of Rigid, shape=(b, l)
        Backbone frames of every layer of the structure module.
    """

    positions: Float[Tensor, "b l 37 3"]
    positions14: Float[Tensor, "b l 14 3"]
    atom_mask: Bool[Tensor, "b l 37"]
    mask: Bool[Tensor, "b l"]
    plddt_logits: Float[Tensor, "b l 37 50"]
    pae_logits: Float[Tensor, "b i j 64"]
    distogram_logits: Float[Tensor, "b i j 64"]
    lm_logits: Float[Tensor, "b l 23"]
    single: Float[Tensor, "b l s"]
    pair: Float[Tensor, "b i j c"]
    frames: list[Rigid]
    unnormalized_angles: Float[Tensor, "b l 7 2"]

    @cached_property
    def plddt(self) -> Float[Tensor, "b l 37"]:
        """Predicted local distance difference test of every atom, 0-100."""
        return PLDDTHead.plddt(self.plddt_logits)

    @cached_property
    def pae(self) -> Float[Tensor, "b i j"]:
        """Predicted error, in angstrom, of residue j in the frame of residue i."""
        return predicted_aligned_error(self.pae_logits)

    @cached_property
    def ptm(self) -> Float[Tensor, " b"]:
        """Predicted TM-score, 0-1."""
        return predicted_tm(self.pae_logits, self.mask)
