"""Reading one structure file: PDB, mmCIF or binary CIF, plain or gzipped."""

import gzip
import warnings
from io import BytesIO, TextIOWrapper
from pathlib import Path

from biotite.structure import AtomArray
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import BinaryCIFFile, CIFFile, get_structure

from protquant.errors import ProtquantError
from protquant.structures.reference import Reference, reference_from_atoms

__all__ = ["SUFFIXES", "load_structure", "read_structure", "structure_name"]

_PDB_SUFFIXES = (".pdb", ".ent")
_CIF_SUFFIXES = (".cif", ".mmcif")
_BINARY_CIF_SUFFIXES = (".bcif",)
SUFFIXES = tuple(
    suffix + packed for suffix in _PDB_SUFFIXES + _CIF_SUFFIXES + _BINARY_CIF_SUFFIXES for packed in ("", ".gz")
)
"""File name endings, in lower case, that are read as structures."""


def structure_name(file_name: str) -> str:
    """File name without its structure suffix: ``1ahsA`` for ``1ahsA.pdb.gz``."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if file_name.lower().endswith(suffix):
            return file_name[: -len(suffix)]
    return file_name


def load_structure(path: str | Path) -> Reference:
    """Read the protein of one structure file.

    The first model is read; of alternate locations the one with the highest occupancy is kept; waters, ligands and
    hydrogens are dropped; modified residues become their parents.

    Parameters
    ----------
    path : str or Path
        A ``.pdb``, ``.ent``, ``.cif``, ``.mmcif`` or ``.bcif`` file, or one of these with ``.gz`` added.

    Returns
    -------
    Reference
        Named after the file; its source is the path.

    Raises
    ------
    ProtquantError
        If the file does not exist, is of another kind, cannot be parsed, or holds no protein. It names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ProtquantError(f"{path}: no such file. Give the path of a structure ({', '.join(SUFFIXES)}).")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProtquantError(f"{path}: cannot be read ({error.strerror}).") from error
    return read_structure(content, path.name, str(path))


def read_structure(content: bytes, file_name: str, source: str) -> Reference:
    """Parse the bytes of a structure file; `file_name` says the format, `source` goes into messages.

    Raises
    ------
    ProtquantError
        As `load_structure`.
    """
    lower = file_name.lower()
    if not lower.endswith(SUFFIXES):
        raise ProtquantError(f"{source}: not a kind of structure file that is read ({', '.join(SUFFIXES)}).")
    try:
        if lower.endswith(".gz"):
            content = gzip.decompress(content)
        with warnings.catch_warnings():
            # About empty element columns and optional mmCIF items that many programs omit; biotite's guesses serve.
            warnings.simplefilter("ignore", UserWarning)
            atoms = _parse(content, lower.removesuffix(".gz"))
    except Exception as error:  # the parsers raise whatever a broken line leads to, KeyError and struct.error included
        raise ProtquantError(
            f"{source}: cannot be read as a structure ({type(error).__name__}: {error}). "
            "Check that the file is complete and that its name ends as its format does."
        ) from error
    return reference_from_atoms(atoms, structure_name(file_name), source)


def _parse(content: bytes, file_name: str) -> AtomArray:
    if file_name.endswith(_PDB_SUFFIXES):
        text = TextIOWrapper(BytesIO(content), encoding="utf-8", errors="replace")
        return PDBFile.read(text).get_structure(model=1, altloc="occupancy")
    if file_name.endswith(_CIF_SUFFIXES):
        cif = CIFFile.read(TextIOWrapper(BytesIO(content), encoding="utf-8", errors="replace"))
    else:
        cif = BinaryCIFFile.read(BytesIO(content))
    # Predicted models may leave the column out, and biotite then refuses to choose by it.
    altloc = "occupancy" if "occupancy" in cif.block["atom_site"] else "first"
    return get_structure(cif, model=1, altloc=altloc)
