"""A protein structure for scoring: heavy atoms, residues in order, and the sequence of the present residues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from biotite.structure import AtomArray, get_residue_starts
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.residues import VIRTUAL_CB
from protquant.structures.protein_atoms import keep_protein, one_letter

__all__ = ["Reference", "reference_from_atoms"]

CHAIN_SEPARATOR = ":"
"""Separator of the chains of a complex, as in a FASTA record for `protquant fold`."""


@dataclass(frozen=True, eq=False)
class Reference:
    """An experimental or predicted structure, reduced to its protein residues.

    Parameters
    ----------
    name : str
        Short name, for tables and file names, such as ``1ahsA``.
    sequence : str
        One letter per present residue; the chains of a complex are joined by ``:``.
    atoms : AtomArray
        Heavy atoms, each residue contiguous, in the order of `sequence`; coordinates in angstrom.
    source : str
        Origin of the structure: a path or a database entry.
    notes : tuple of str
        Remarks for the user: residues that were left out, chains that were renamed.
    full_sequences : mapping
        Three-letter names of all residues of a chain, including unresolved ones (SEQRES), by name of the chain; only
        for chains that have them in the file.

    Notes
    -----
    Arrays per residue have L = ``len(reference)`` rows: the residues of all chains, one after another.
    """

    name: str
    sequence: str
    atoms: AtomArray = field(repr=False)
    source: str
    notes: tuple[str, ...] = ()
    full_sequences: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.residue_starts) - 1

    @cached_property
    def residue_starts(self) -> NDArray[np.int64]:
        """Index of the first atom of each residue, and the number of atoms; shape (L + 1,)."""
        return np.asarray(get_residue_starts(self.atoms, add_exclusive_stop=True), dtype=np.int64)

    @cached_property
    def chain_sequences(self) -> tuple[str, ...]:
        """Sequence of each chain, in file order."""
        return tuple(self.sequence.split(CHAIN_SEPARATOR))

    @cached_property
    def chain_index(self) -> NDArray[np.int64]:
        """Number of the chain, from 0, of each residue; shape (L,)."""
        lengths = [len(sequence) for sequence in self.chain_sequences]
        return np.repeat(np.arange(len(lengths)), lengths)

    @cached_property
    def chain_ids(self) -> tuple[str, ...]:
        """Name of each chain, in file order."""
        of_residue = self.atoms.chain_id[self.residue_starts[:-1]]
        firsts = np.flatnonzero(np.diff(self.chain_index, prepend=-1))
        return tuple(str(of_residue[i]) for i in firsts)

    @property
    def full_length(self) -> int | None:
        """Number of residues of all chains, including unresolved ones; None if it is unknown for a chain."""
        lengths = [len(self.full_sequences.get(name, ())) for name in self.chain_ids]
        return sum(lengths) if all(lengths) else None

    def of_chains(self, names: Sequence[str]) -> "Reference":
        """Return the structure with only these chains, in the order of the file.

        Raises
        ------
        ProtquantError
            If there is no chain with such a name; the message lists the chains.
        """
        if unknown := [name for name in names if name not in self.chain_ids]:
            there = ", ".join(name or "(blank)" for name in self.chain_ids)
            raise ProtquantError(f"{self.source}: there is no chain {unknown[0]!r}; there are {there}")
        selected = [name in names for name in self.chain_ids]
        chains = [chain for chain, keep in zip(self.chain_sequences, selected, strict=True) if keep]
        atoms = self.atoms[np.isin(self.atoms.chain_id, list(names))]
        return replace(self, sequence=CHAIN_SEPARATOR.join(chains), atoms=atoms)

    @cached_property
    def residue_numbers(self) -> NDArray[np.int64]:
        """Number of each residue in the file; shape (L,)."""
        return np.asarray(self.atoms.res_id[self.residue_starts[:-1]], dtype=np.int64)

    def atom_coordinates(self, atom_name: str) -> NDArray[np.float64]:
        """Return coordinates of one atom per residue in angstrom, shape (L, 3); NaN for residues without it."""
        coordinates = np.full((len(self), 3), np.nan)
        found = np.flatnonzero(self.atoms.atom_name == atom_name)
        residues = np.searchsorted(self.residue_starts, found, side="right") - 1
        coordinates[residues] = self.atoms.coord[found]
        return coordinates

    @cached_property
    def ca(self) -> NDArray[np.float64]:
        """C-alpha coordinates in angstrom, shape (L, 3); NaN if missing."""
        return self.atom_coordinates("CA")

    @cached_property
    def backbone(self) -> NDArray[np.float64]:
        """N, CA and C coordinates in angstrom, shape (L, 3 atoms, 3); NaN if missing."""
        return np.stack([self.atom_coordinates("N"), self.ca, self.atom_coordinates("C")], axis=1)

    @cached_property
    def cb(self) -> NDArray[np.float64]:
        """C-beta coordinates in angstrom, shape (L, 3); NaN if missing.

        A residue without this atom (glycine, or an unresolved side chain) gets the ideal position, computed from its
        N, CA and C.
        """
        observed = self.atom_coordinates("CB")
        n, ca, c = self.backbone[:, 0], self.backbone[:, 1], self.backbone[:, 2]
        b, d = ca - n, c - ca
        cross, along_n, along_c = VIRTUAL_CB
        ideal = cross * np.cross(b, d) + along_n * b + along_c * d + ca
        return np.where(np.isnan(observed), ideal, observed)


def reference_from_atoms(atoms: AtomArray, name: str = "structure", source: str = "memory") -> Reference:
    """Return the protein of a biotite array as a `Reference`.

    Parameters
    ----------
    atoms : AtomArray
        Any structure. Waters, ligands, nucleic acids and hydrogens are dropped; modified residues become
        their parents (see `keep_protein`).
    name, source : str
        See `Reference`.

    Raises
    ------
    ProtquantError
        If the array has no protein residue.
    """
    protein = keep_protein(atoms, source)
    starts = np.asarray(get_residue_starts(protein))
    letters = [one_letter(residue) for residue in protein.res_name[starts]]
    chains = protein.chain_id[starts]
    first_of_chain = chains[1:] != chains[:-1]
    for i in reversed(np.flatnonzero(first_of_chain) + 1):
        letters.insert(int(i), CHAIN_SEPARATOR)
    return Reference(name=name, sequence="".join(letters), atoms=protein, source=source)
