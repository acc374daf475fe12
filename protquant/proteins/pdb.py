"""Write a structure in the PDB format; its fixed columns limit the size."""

import io
import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from biotite.structure import AtomArray
from biotite.structure.io.pdb import PDBFile

from protquant.errors import ProtquantError
from protquant.files.outputs import atomic_write
from protquant.proteins.atoms import check_atoms

__all__ = ["PDBLimitError", "write_pdb"]

_MAX_ATOMS = 99_999
_MAX_RESIDUE = 9_999
_COORDINATE_RANGE = (-999.999, 9999.999)  # eight columns, three decimals
_REMARK = "REMARK   6"  # numbers 6 to 99 are for free text
_REMARK_WIDTH = 68  # columns 12 to 79
_END = "END   "  # padded to six columns, as Bio.PDB warns of a shorter line
_ONLY_MMCIF = "Write this target as mmCIF only."


class PDBLimitError(ProtquantError):
    """The structure does not fit the fixed columns of the PDB format; mmCIF has no such limits."""


def write_pdb(atoms: AtomArray, path: str | os.PathLike[str], remarks: Sequence[str] = ()) -> Path:
    """Write a structure as PDB, with a `TER` record after each chain.

    Parameters
    ----------
    atoms : AtomArray
        The atoms, chain by chain; annotations `b_factor` and `occupancy` are written if present.
    path : str or PathLike
        The file.
    remarks : sequence of str
        Sentences that are written before the atoms, as records `REMARK   6`; the format allows only ASCII.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    PDBLimitError
        If the structure is too large for the format: more than 62 chains, 99,999 atoms or 9,999 residues in a chain,
        coordinates of more than four digits.
    ProtquantError
        If there are no atoms, coordinates are not finite, or the file cannot be written.
    """
    check_atoms(atoms, path)
    _check_limits(atoms, path)
    file = PDBFile()
    file.set_structure(atoms)
    text = io.StringIO()
    file.write(text)
    lines = [line for remark in remarks for line in _remark_lines(remark)]
    if lines:
        lines.insert(0, _REMARK)  # the format requires an empty first remark
    previous, last, serial = atoms.chain_id[0], "", 1
    for line, chain in zip(text.getvalue().splitlines(), atoms.chain_id, strict=True):
        if chain != previous:
            lines.append(_end_of_chain(last, serial))
            previous, serial = chain, serial + 1
        last = f"{line[:6]}{serial:5d}{line[11:]}"
        lines.append(last)
        serial += 1
    return atomic_write(path, "\n".join([*lines, _end_of_chain(last, serial), _END, ""]))


def _end_of_chain(last: str, serial: int) -> str:
    """Return the `TER` record that follows the line `last` of a chain's last atom; it repeats the residue and chain."""
    return f"TER   {serial:5d}      {last[17:27]}".rstrip()


def _remark_lines(remark: str) -> Iterator[str]:
    plain = remark.encode("ascii", "replace").decode("ascii")
    for line in textwrap.wrap(plain, _REMARK_WIDTH, subsequent_indent="  "):
        yield f"{_REMARK} {line}"


def _check_limits(atoms: AtomArray, path: str | os.PathLike[str]) -> None:
    # biotite wraps large numbers around with only a warning; two residues would then have the same number.
    # The `TER` record of each chain takes a serial number too.
    if (count := atoms.array_length()) + len(set(atoms.chain_id)) > _MAX_ATOMS:
        raise PDBLimitError(f"{path}: {count} atoms, but the PDB format numbers {_MAX_ATOMS}. {_ONLY_MMCIF}")
    if (residue := int(atoms.res_id.max())) > _MAX_RESIDUE:
        raise PDBLimitError(
            f"{path}: a chain of {residue} residues, but the PDB format numbers {_MAX_RESIDUE}. {_ONLY_MMCIF}"
        )
    if long := [name for name in set(atoms.chain_id) if len(name) > 1]:
        raise PDBLimitError(
            f"{path}: {len(set(atoms.chain_id))} chains, one of them with the name {min(long)}; the PDB format has"
            f" one-letter names for 62. {_ONLY_MMCIF}"
        )
    low, high = float(atoms.coord.min()), float(atoms.coord.max())
    if low < _COORDINATE_RANGE[0] or high > _COORDINATE_RANGE[1]:
        raise PDBLimitError(
            f"{path}: coordinates run from {low:.0f} to {high:.0f} angstrom, but the PDB format has eight columns "
            f"for each. {_ONLY_MMCIF}"
        )
