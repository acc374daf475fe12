"""Reading one structure file: PDB, mmCIF or BinaryCIF, plain or gzipped, recognized by content."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from biotite.structure import AtomArray

from protquant.errors import ProtquantError
from protquant.files.unpacking import read_bounded
from protquant.structures.atom_table import AtomTable
from protquant.structures.census import take_census
from protquant.structures.conformers import one_conformation
from protquant.structures.content import recognize
from protquant.structures.molecules import in_sequence, name_molecules
from protquant.structures.protein_atoms import is_amino_acid
from protquant.structures.read_cif import read_binary_cif, read_cif
from protquant.structures.read_pdb import read_pdb
from protquant.structures.reference import Reference, reference_from_atoms

__all__ = ["SUFFIXES", "has_structure_suffix", "load_structure", "read_structure", "structure_name"]

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif")
"""Suffixes of structure files in a folder, without `.gz`; `.pdb1` and so on (assemblies) also count."""

_SUFFIX = re.compile(r"\.(?:pdb\d*|ent|cif|mmcif|bcif)(?:\.gz)?$", re.IGNORECASE)
_NOWHERE = 9998.0
"""Coordinate in angstrom from which an atom counts as missing; modeling programs put unknown atoms at 9999."""


def has_structure_suffix(file_name: str) -> bool:
    """Return whether a file name has the suffix of a structure."""
    return _SUFFIX.search(file_name) is not None


def structure_name(file_name: str) -> str:
    """Return the file name without its structure suffix: ``1ahsA`` for ``1ahsA.pdb.gz``."""
    return _SUFFIX.sub("", file_name)


def load_structure(path: str | Path) -> Reference:
    """Read the protein of one structure file of any name: PDB, mmCIF or BinaryCIF, plain or gzipped.

    The first model is read, in one conformation (`one_conformation`). Waters, ligands and hydrogens are dropped;
    modified residues become their parents. The result's `notes` list, for instance, residues that are left out.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Reference
        Structure with the name of the file; its `source` is the path.

    Raises
    ------
    ProtquantError
        If the file does not exist, is not a structure, cannot be parsed, or contains no protein. The message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise ProtquantError(f"{path}: is a folder. Give the path of one structure.")
    if not path.is_file():
        raise ProtquantError(f"{path}: no such file. Give the path of a structure (PDB or mmCIF).")
    try:
        with path.open("rb") as stream:
            content = read_bounded(stream, str(path))
    except OSError as error:
        raise ProtquantError(f"{path}: cannot be read ({error.strerror}).") from error
    return read_structure(content, path.name, str(path))


def read_structure(content: bytes, file_name: str, source: str) -> Reference:
    """Parse the bytes of a structure file; `file_name` gives the structure's name, messages name `source`.

    Raises
    ------
    ProtquantError
        As for `load_structure`.
    """
    found = recognize(content, source)
    if found.kind == "pdb":
        reading = read_pdb(found.text, source)
    elif found.kind == "cif":
        reading = read_cif(found.text, source)
    else:
        reading = read_binary_cif(found.data, source)
    table = reading.table
    placed = np.isfinite(table.position) & (np.abs(table.position) < _NOWHERE)
    there = np.asarray(placed.all(axis=1), dtype=bool)
    table = table[there]
    if not len(table):
        what = f"none of its {len(there)} atoms has a position" if len(there) else "its first model has no atoms"
        raise ProtquantError(f"{source}: {what}.")
    chain, named = name_molecules(table)
    notes = [*reading.notes, *named]
    if missing := int((~there).sum()):
        notes.append(f"{missing} atoms without a position (coordinates missing or beyond {_NOWHERE:g}) are left out")
    table = replace(table, chain=chain)
    chosen = table[one_conformation(table)]
    reference = reference_from_atoms(_atoms(chosen[in_sequence(chosen)]), structure_name(file_name), source)
    notes += take_census(table, reference, source)
    of_chains = {
        name: [residue for residue in reading.sequences[name] if is_amino_acid(residue)]
        for name in reference.chain_ids
        if name in reading.sequences
    }
    return replace(reference, notes=tuple(notes), full_sequences=of_chains)


def _atoms(table: AtomTable) -> AtomArray:
    atoms = AtomArray(len(table))
    atoms.coord = table.position.astype(np.float32)
    for name, column in (
        ("chain_id", table.chain),
        ("res_id", table.number),
        ("ins_code", table.insertion),
        ("res_name", table.residue),
        ("atom_name", table.atom),
        ("element", table.element),
        ("hetero", table.hetero),
        ("b_factor", table.b_factor),
        ("occupancy", table.occupancy),
    ):
        atoms.set_annotation(name, column)
    return atoms
