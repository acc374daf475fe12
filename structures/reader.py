"""Reading one structure file: PDB, mmCIF or binary CIF, plain or gzipped, whatever it is called."""

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
"""Endings of names, without `.gz`, of the structures of a folder; `.pdb1` and so on, of assemblies, too."""

_SUFFIX = re.compile(r"\.(?:pdb\d*|ent|cif|mmcif|bcif)(?:\.gz)?$", re.IGNORECASE)
_NOWHERE = 9998.0
"""Angstrom: modelling programs put atoms that they know nothing of at 9999."""


def has_structure_suffix(file_name: str) -> bool:
    """Return whether a file is called as structures are."""
    return _SUFFIX.search(file_name) is not None


def structure_name(file_name: str) -> str:
    """File name without its structure suffix: ``1ahsA`` for ``1ahsA.pdb.gz``."""
    return _SUFFIX.sub("", file_name)


def load_structure(path: str | Path) -> Reference:
    """Read the protein of one structure file, whatever its name: PDB, mmCIF or BinaryCIF, plain or gzipped.

    The first model is read, in one conformation (`one_conformation`); waters, ligands and hydrogens are dropped;
    modified residues become their parents. What a reader should know, such as residues that could not be used, is in
    the result's `notes`.

    Parameters
    ----------
    path : str or Path
        A file. A folder, a web page and the like are called by their names.

    Returns
    -------
    Reference
        Named after the file; its source is the path.

    Raises
    ------
    ProtquantError
        If the file does not exist, is no structure, cannot be parsed, or holds no protein. It names the file.
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
    """Parse the bytes of a structure file; `file_name` gives the name, `source` goes into messages.

    Raises
    ------
    ProtquantError
        As `load_structure`.
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
        what = f"none of its {len(there)} atoms has a place" if len(there) else "its first model has no atoms"
        raise ProtquantError(f"{source}: {what}.")
    chain, named = name_molecules(table)
    notes = [*reading.notes, *named]
    if missing := int((~there).sum()):
        notes.append(f"{missing} atoms have no place (coordinates of {_NOWHERE:g} or none) and are left out")
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
