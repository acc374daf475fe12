"""Write atoms that are not a `Prediction` as PDB or mmCIF, depending on the suffix of the file."""

import io
from collections.abc import Sequence
from pathlib import Path

from biotite.structure import AtomArray
from biotite.structure.io.pdbx import CIFFile, set_structure

from protquant.errors import ProtquantError
from protquant.files.outputs import atomic_write
from protquant.proteins.atoms import check_atoms
from protquant.proteins.pdb import write_pdb

__all__ = ["check_atom_file", "write_atoms"]

_PDB, _CIF = (".pdb", ".ent"), (".cif", ".mmcif")


def check_atom_file(path: Path) -> None:
    """Raise ProtquantError if the suffix of the file is neither of PDB nor of mmCIF."""
    if path.suffix.lower() not in _PDB + _CIF:
        raise ProtquantError(f"{path}: the name must end in one of {', '.join(_PDB + _CIF)}")


def write_atoms(atoms: AtomArray, path: Path, remarks: Sequence[str] = ()) -> Path:
    """Write a structure.

    Parameters
    ----------
    path : Path
        A file that ends in `.pdb`, `.ent`, `.cif` or `.mmcif`.
    remarks : sequence of str
        Sentences that are written before the atoms.

    Raises
    ------
    ProtquantError
        If the suffix is another, there are no atoms, they do not fit the format, or the file cannot be written.
    """
    check_atom_file(path)
    if path.suffix.lower() in _PDB:
        return write_pdb(atoms, path, remarks)
    check_atoms(atoms, path)
    file, text = CIFFile(), io.StringIO()
    set_structure(file, atoms, data_block="structure")
    file.write(text)
    return atomic_write(path, "".join(f"# {remark}\n" for remark in remarks) + text.getvalue())
