"""Structures as training targets: residue types, atoms in the 14-atom order, backbone frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from biotite.structure import get_residue_starts
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.models.esm.openfold_utils import Rigid, residue_constants

from protquant.models.complexes import FoldingInput
from protquant.models.trunk import virtual_cb
from protquant.structures import Reference

__all__ = ["Target", "TargetBatch", "collate", "make_target"]

# Atoms whose names may be swapped without changing the structure (Jumper et al. 2021, 1.8.5); losses skip them.
_AMBIGUOUS = {
    ("ASP", "OD1"), ("ASP", "OD2"), ("GLU", "OE1"), ("GLU", "OE2"),
    ("PHE", "CD1"), ("PHE", "CD2"), ("PHE", "CE1"), ("PHE", "CE2"),
    ("TYR", "CD1"), ("TYR", "CD2"), ("TYR", "CE1"), ("TYR", "CE2"),
}  # fmt: skip


@dataclass
class Target:
    """Training target of one chain of l residues.

    Attributes
    ----------
    aatype : Tensor, dtype=int64, shape=(l,)
    atoms : Tensor, shape=(l, 14, 3)
        Coordinates in angstrom; missing atoms are zero.
    atom_mask : Tensor, dtype=bool, shape=(l, 14)
        True for present atoms whose names cannot be swapped.
    """

    name: str
    aatype: Int[Tensor, " l"]
    atoms: Float[Tensor, "l 14 3"]
    atom_mask: Bool[Tensor, "l 14"]


def make_target(reference: Reference) -> Target:
    """Return the centered target of a single-chain reference structure."""
    atoms = reference.atoms
    starts = get_residue_starts(atoms, add_exclusive_stop=True)
    length = len(starts) - 1
    positions = torch.zeros(length, 14, 3)
    present, mask = torch.zeros(2, length, 14, dtype=torch.bool)
    for row, (first, stop) in enumerate(pairwise(starts)):
        residue = residue_constants.restype_1to3.get(reference.sequence[row], "UNK")
        names = residue_constants.restype_name_to_atom14_names[residue]
        for atom in atoms[first:stop]:
            if atom.atom_name in names:
                column = names.index(atom.atom_name)
                positions[row, column] = torch.from_numpy(atom.coord)
                present[row, column] = True
                mask[row, column] = (residue, atom.atom_name) not in _AMBIGUOUS
    unknown = residue_constants.restype_order_with_x["X"]
    positions[present] -= positions[:, 1].mean(0)
    aatype = torch.tensor([residue_constants.restype_order_with_x.get(a, unknown) for a in reference.sequence])
    return Target(reference.name, aatype, positions, mask)


@dataclass
class TargetBatch:
    """Targets padded to the longest, with frames and C-betas for the losses."""

    input: FoldingInput
    atoms: Float[Tensor, "b l 14 3"]
    atom_mask: Bool[Tensor, "b l 14"]
    frames: Rigid

    @property
    def mask(self) -> Bool[Tensor, "b l"]:
        """Residues with a whole backbone."""
        return self.atom_mask[..., :3].all(-1)

    @property
    def ca(self) -> Float[Tensor, "b l 3"]:
        return self.atoms[..., 1, :]

    @property
    def cb(self) -> Float[Tensor, "b l 3"]:
        return virtual_cb(*self.atoms[..., :3, :].unbind(-2))


def collate(targets: Sequence[Target]) -> TargetBatch:
    """Return one batch of padded targets."""
    aatype = pad_sequence([target.aatype for target in targets], batch_first=True)
    atoms = pad_sequence([target.atoms for target in targets], batch_first=True)
    atom_mask = pad_sequence([target.atom_mask for target in targets], batch_first=True)
    mask = pad_sequence([torch.ones_like(target.aatype, dtype=torch.bool) for target in targets], batch_first=True)
    index = torch.arange(aatype.shape[1]).expand_as(aatype)
    n, ca, c = atoms[..., :3, :].unbind(-2)
    # The backbone frame of the ideal geometry: C on the x axis, N in the xy plane.
    frames = Rigid.from_3_points(2 * ca - c, ca, n)
    chain_index = torch.where(mask, 0, -1)
    return TargetBatch(FoldingInput(aatype, mask, index, chain_index), atoms, atom_mask, frames)
