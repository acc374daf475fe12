"""Selection of the heavy atoms of standard amino acids from the atoms of a structure file."""

from functools import cache

import numpy as np
from biotite.structure import AtomArray, get_residue_starts
from biotite.structure.info import amino_acid_names, one_letter_code
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.residues import MAX_CA_DISTANCE, NEAREST_AMINO_ACID

__all__ = ["NAMES", "is_amino_acid", "keep_protein", "one_letter"]

UNKNOWN = "UNK"

_THREE_LETTER = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS",
    "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP",
    "Y": "TYR", "V": "VAL",
}  # fmt: skip
_ONE_LETTER = {name: letter for letter, name in _THREE_LETTER.items()}
_BACKBONE = frozenset({"N", "CA", "C", "O", "OXT"})
# Written out, because reading them from the component dictionary takes more than a second.
_SIDE_CHAINS = {
    "ALA": "CB", "ARG": "CB CG CD NE CZ NH1 NH2", "ASN": "CB CG OD1 ND2", "ASP": "CB CG OD1 OD2", "CYS": "CB SG",
    "GLN": "CB CG CD OE1 NE2", "GLU": "CB CG CD OE1 OE2", "GLY": "", "HIS": "CB CG ND1 CD2 CE1 NE2",
    "ILE": "CB CG1 CG2 CD1", "LEU": "CB CG CD1 CD2", "LYS": "CB CG CD CE NZ", "MET": "CB CG SD CE",
    "PHE": "CB CG CD1 CD2 CE1 CE2 CZ", "PRO": "CB CG CD", "SER": "CB OG", "THR": "CB OG1 CG2",
    "TRP": "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2", "TYR": "CB CG CD1 CD2 CE1 CE2 CZ OH", "VAL": "CB CG1 CG2",
}  # fmt: skip
_HEAVY_ATOMS = {name: _BACKBONE | set(side_chain.split()) for name, side_chain in _SIDE_CHAINS.items()}
# Names of protonation states in molecular dynamics packages; the component dictionary lacks most of them.
_PROTONATION_STATES = {
    "ASH": "ASP", "CYM": "CYS", "CYX": "CYS", "GLH": "GLU", "HID": "HIS", "HIE": "HIS", "HIP": "HIS", "HSD": "HIS",
    "HSE": "HIS", "HSP": "HIS", "LYN": "LYS",
}  # fmt: skip


NAMES = frozenset(_ONE_LETTER) | frozenset(_PROTONATION_STATES)
"""Three-letter names of the 20 amino acids and of their protonation states."""


@cache
def is_amino_acid(res_name: str) -> bool:
    """Return whether a residue name is an amino acid: a standard one, a protonation state, or one in the dictionary."""
    # The dictionary comes last: it takes 0.2 s to open, and few files need it.
    return res_name in _ONE_LETTER or res_name in _PROTONATION_STATES or res_name in set(amino_acid_names())


@cache
def _parent(res_name: str) -> str:
    """Return the standard three-letter name of a residue, by its one-letter code in the component dictionary."""
    if res_name in _ONE_LETTER:
        return res_name
    if res_name in _PROTONATION_STATES:
        return _PROTONATION_STATES[res_name]
    letter = one_letter_code(res_name) or ""
    return _THREE_LETTER.get(NEAREST_AMINO_ACID.get(letter, letter), UNKNOWN)


def one_letter(res_name: str) -> str:
    """Return the one-letter code of a residue name after `keep_protein`; ``X`` for an unknown residue."""
    return _ONE_LETTER.get(res_name, "X")


def keep_protein(atoms: AtomArray, source: str) -> AtomArray:
    """Return the heavy atoms of the amino acids, with the names of the 20 standard residues.

    A residue is kept if the chemical component dictionary lists it as an amino acid, or if it has N, CA and C. A
    residue marked as hetero must also be part of a chain: its CA lies within 4.5 angstrom of the previous or next CA,
    or its number lies within the range of the chain. A free amino acid thus counts as a ligand. A modified residue gets
    the name of its parent and keeps the parent's atoms (selenium of MSE becomes SD of MET); without a parent it becomes
    UNK. Of residues with equal chain, number and insertion code, the first is kept.

    Parameters
    ----------
    atoms : AtomArray
        Atoms of one model, without alternate locations.
    source : str
        Name of the file, for the error message.

    Returns
    -------
    AtomArray
        New array. Residues of a chain are contiguous; chains are in order of appearance.

    Raises
    ------
    ProtquantError
        If no residue is left.
    """
    heavy = ~np.isin(atoms.element, ["H", "D"]) & np.isfinite(atoms.coord).all(axis=-1)
    atoms = atoms[heavy]
    order = _chain_order(atoms.chain_id)
    atoms = atoms[order]
    if len(atoms) == 0:
        raise _no_protein(source)
    starts = np.asarray(get_residue_starts(atoms, add_exclusive_stop=True))
    kept_residues = _protein_residues(atoms, starts)

    keep = np.zeros(len(atoms), dtype=bool)
    seen: set[tuple[str, int, str]] = set()
    for i in np.flatnonzero(kept_residues):
        start, stop = int(starts[i]), int(starts[i + 1])
        identity = (str(atoms.chain_id[start]), int(atoms.res_id[start]), str(atoms.ins_code[start]))
        if identity in seen:
            continue
        seen.add(identity)
        _rename(atoms, start, stop)
        allowed = _HEAVY_ATOMS.get(str(atoms.res_name[start]))
        taken: set[str] = set()
        for k in range(start, stop):
            atom_name = str(atoms.atom_name[k])
            if atom_name not in taken and (allowed is None or atom_name in allowed):
                taken.add(atom_name)
                keep[k] = True
    if not keep.any():
        raise _no_protein(source)
    atoms = atoms[keep]
    atoms.hetero[:] = False
    return atoms


def _no_protein(source: str) -> ProtquantError:
    return ProtquantError(
        f"{source}: no protein residues found. Give a structure with at least one chain of amino acids."
    )


def _chain_order(chain_id: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the order that groups atoms by chain, chains in order of appearance."""
    _, first, inverse = np.unique(chain_id, return_index=True, return_inverse=True)
    return np.argsort(first[inverse], kind="stable")


def _protein_residues(atoms: AtomArray, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each residue belongs to a polypeptide; shape (residues,)."""
    count = len(starts) - 1
    residue_of_atom = np.repeat(np.arange(count), np.diff(starts))
    names = atoms.res_name[starts[:-1]]
    known = np.array([is_amino_acid(str(name)) for name in names])

    has_backbone = np.ones(count, dtype=bool)
    for atom_name in ("N", "CA", "C"):
        has_atom = np.zeros(count, dtype=bool)
        has_atom[residue_of_atom[atoms.atom_name == atom_name]] = True
        has_backbone &= has_atom
    candidate = known | has_backbone

    ca = np.full((count, 3), np.nan)
    is_ca = atoms.atom_name == "CA"
    ca[residue_of_atom[is_ca]] = atoms.coord[is_ca]
    chain = atoms.chain_id[starts[:-1]]
    candidates = np.flatnonzero(candidate)
    distance = np.linalg.norm(np.diff(ca[candidates], axis=0), axis=-1)
    bonded = (distance <= MAX_CA_DISTANCE) & (chain[candidates][1:] == chain[candidates][:-1])
    in_chain = np.zeros(count, dtype=bool)
    in_chain[candidates[:-1][bonded]] = True
    in_chain[candidates[1:][bonded]] = True
    hetero = atoms.hetero[starts[:-1]]
    return np.asarray(candidate & (~hetero | in_chain | _within(chain, atoms.res_id[starts[:-1]], candidate & ~hetero)))


def _within(chain: NDArray[np.str_], number: NDArray[np.int64], polymer: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether each residue number is within its chain's range; next to a gap, distances show no bond."""
    within = np.zeros(len(chain), dtype=bool)
    for name in np.unique(chain[polymer]):
        of_chain = chain == name
        known = number[of_chain & polymer]
        within |= of_chain & (number > known.min()) & (number < known.max())
    return within


def _rename(atoms: AtomArray, start: int, stop: int) -> None:
    """Rename the atoms of one residue, in place, like those of its standard parent."""
    name = str(atoms.res_name[start])
    parent = _parent(name)
    if parent == name:
        return
    atoms.res_name[start:stop] = parent
    if parent == "MET":
        selenium = start + np.flatnonzero(atoms.atom_name[start:stop] == "SE")
        atoms.atom_name[selenium] = "SD"
        atoms.element[selenium] = "S"
