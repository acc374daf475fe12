"""Conversion of the network's atom37 arrays to an atom array with named chains, residues and atoms."""

import os
import string
from collections.abc import Sequence

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.structure import AtomArray
from numpy.typing import ArrayLike, NDArray

from protquant.errors import ProtquantError
from protquant.proteins.sequence import AMINO_ACIDS

__all__ = ["atoms_from_atom37", "chain_ids", "check_atoms", "residue_names", "residue_positions"]

_LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
# Order of the 37 atoms of a residue in AlphaFold and ESMFold. It is also in transformers, which needs torch.
_ATOM_NAMES = np.array([
    "N", "CA", "C", "CB", "O", "CG", "CG1", "CG2", "OG", "OG1", "SG", "CD", "CD1", "CD2", "ND1", "ND2", "OD1", "OD2",
    "SD", "CE", "CE1", "CE2", "CE3", "NE", "NE1", "NE2", "OE1", "OE2", "CH2", "NH1", "NH2", "OH", "CZ", "CZ2", "CZ3",
    "NZ", "OXT",
])  # fmt: skip
_ELEMENTS = np.array([name[0] for name in _ATOM_NAMES])  # amino acids: C, N, O, S only
_RESIDUE_NAMES = {letter: ProteinSequence.convert_letter_1to3(letter) for letter in AMINO_ACIDS}


def chain_ids(count: int) -> list[str]:
    """Return names for chains: A to Z, a to z, 0 to 9, then two letters (AA, AB, ...) from the 63rd on, then three.

    Parameters
    ----------
    count : int
        Number of chains.

    Returns
    -------
    list of str
    """
    names = list(_LETTERS[:count])
    prefixes = list(_LETTERS)
    while len(names) < count:
        longer = [prefix + letter for prefix in prefixes for letter in _LETTERS]
        names += longer[: count - len(names)]
        prefixes = longer
    return names


def residue_names(sequence: str) -> list[str]:
    """Return the three-letter names of one chain's residues; a letter outside the 20 amino acids becomes `UNK`."""
    return [_RESIDUE_NAMES.get(letter, "UNK") for letter in sequence]


def atoms_from_atom37(positions: ArrayLike, mask: ArrayLike, sequence: str, plddt: ArrayLike) -> AtomArray:
    """Return the atoms of a prediction with their names.

    Chains are named A, B, ... and residue numbers start at 1 in each. ESMFold places no atoms for an unknown
    residue (`X`): such a residue is absent from the result and its number is skipped.

    Parameters
    ----------
    positions : array_like, shape=(L, 37, 3)
        Coordinates in angstrom, atoms in the order of AlphaFold's atom37: N, CA, C, CB, O, ..., OXT.
    mask : array_like, shape=(L, 37)
        Above 0.5 where the atom exists.
    sequence : str
        One-letter codes of the L residues, `:` between chains.
    plddt : array_like, shape=(L,) or (L, 37)
        pLDDT from 0 to 100, stored as B-factors.

    Returns
    -------
    AtomArray
        Atoms with the annotations `b_factor` and `occupancy` (1) besides the mandatory ones.

    Raises
    ------
    ValueError
        If shapes and sequence do not fit together.
    """
    chains = sequence.split(":")
    length = sum(map(len, chains))
    coordinates, exists, confidence = (np.asarray(array, dtype=np.float32) for array in (positions, mask, plddt))
    if confidence.ndim == 1:
        confidence = np.repeat(confidence[:, None], exists.shape[-1], axis=1)
    for name, array, shape in (
        ("positions", coordinates, (length, 37, 3)),
        ("mask", exists, (length, 37)),
        ("plddt", confidence, (length, 37)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, but a sequence of {length} residues needs {shape}")
    residue, atom = np.nonzero(exists > 0.5)
    atoms = AtomArray(len(residue))
    atoms.coord = coordinates[residue, atom]
    atoms.chain_id = np.repeat(chain_ids(len(chains)), [len(chain) for chain in chains])[residue]
    atoms.res_id = np.concatenate([np.arange(1, len(chain) + 1) for chain in chains])[residue]
    atoms.res_name = np.array([name for chain in chains for name in residue_names(chain)])[residue]
    atoms.atom_name = _ATOM_NAMES[atom]
    atoms.element = _ELEMENTS[atom]
    atoms.set_annotation("b_factor", confidence[residue, atom])
    atoms.set_annotation("occupancy", np.ones(len(residue), dtype=np.float32))
    return atoms


def check_atoms(atoms: AtomArray, path: str | os.PathLike[str]) -> None:
    """Raise a `ProtquantError` that names `path` if there are no atoms or a coordinate is not finite."""
    count = atoms.array_length()
    if count == 0:
        raise ProtquantError(
            f"{path}: the structure has no atoms. ESMFold places none for unknown residues (X): give the amino acids."
        )
    if broken := count - int(np.isfinite(atoms.coord).all(axis=-1).sum()):
        raise ProtquantError(
            f"{path}: {broken} of {count} atoms have coordinates that are not finite numbers. "
            "The model overflowed: fold with --dtype float32, or with a recipe that keeps more bits."
        )


def residue_positions(chains: Sequence[str], residues: AtomArray) -> NDArray[np.integer]:
    """Return the positions of the residues that have atoms, counted from 0 through all chains.

    Parameters
    ----------
    chains : sequence of str
        Sequences of all chains.
    residues : AtomArray
        One atom of each residue.
    """
    first = dict(zip(chain_ids(len(chains)), np.cumsum([0, *map(len, chains[:-1])]), strict=True))
    return np.array([first[chain] for chain in residues.chain_id]) + residues.res_id - 1
