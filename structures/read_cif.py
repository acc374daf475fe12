"""Reading the atoms of mmCIF and BinaryCIF files; gemmi and biotite read the tables, this module their columns."""

from collections import Counter
from collections.abc import Sequence
from io import BytesIO

import gemmi
import numpy as np
from biotite.structure.io.pdbx import BinaryCIFFile
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.structures.atom_table import AtomTable, Reading, strings
from protquant.structures.binary_cif_bounds import check_bounds

__all__ = ["read_binary_cif", "read_cif"]

_UNKNOWN = ("?", ".")
_CATEGORY = "_atom_site."
_COLUMNS = (
    *("group_PDB", "type_symbol", "label_atom_id", "auth_atom_id", "label_alt_id", "label_comp_id", "auth_comp_id"),
    *("label_asym_id", "auth_asym_id", "label_seq_id", "auth_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y"),
    *("Cartn_z", "occupancy", "B_iso_or_equiv", "pdbx_PDB_model_num"),
)
_LONGEST = 100
"""Largest length of a value; the longest in practice are names of chains of assemblies."""
_COORDINATES = ("Cartn_x", "Cartn_y", "Cartn_z")

Columns = dict[str, list[str]]
"""Columns by name; values are strings, with `?` or `.` for missing ones."""


def read_cif(text: str, source: str) -> Reading:
    """Read the first model of the first data block that has atoms.

    Only coordinates and names of atoms and residues are required. The authors' names (`auth_...`) of chains, residues
    and atoms are preferred; where they are missing, the archive's (`label_...`) are used.

    Raises
    ------
    ProtquantError
        If the text is not CIF, or has no atoms.
    """
    try:
        document = gemmi.cif.read_string(text)
        blocks = [(block, table) for block in document if len(table := block.find_mmcif_category(_CATEGORY))]
    except (RuntimeError, ValueError) as error:
        raise ProtquantError(f"{source}: cannot be read as mmCIF ({' '.join(str(error).split())}).") from error
    if not blocks:
        raise _no_atoms(source, [block.name for block in document])
    block, found = blocks[0]
    # Tags of CIF do not distinguish upper and lower case.
    tags = [tag.lower() for tag in found.tags]
    places = {name: tags.index(tag) for name in _COLUMNS if (tag := f"{_CATEGORY}{name}".lower()) in tags}
    columns = {
        name: [gemmi.cif.as_string(value) or value for value in found.column(index)] for name, index in places.items()
    }
    reading = _reading(columns, source, _sequences(block, columns))
    if len(blocks) > 1:
        reading.notes.append(f"the first of {len(blocks)} data blocks with atoms is read: {block.name}")
    return reading


def read_binary_cif(data: bytes, source: str) -> Reading:
    """Read a BinaryCIF file like `read_cif`, but without the sequences.

    Raises
    ------
    ProtquantError
        As for `read_cif`.
    """
    try:
        check_bounds(data, _CATEGORY.strip("_."), _LONGEST, source)
        file = BinaryCIFFile.read(BytesIO(data))
        for name in file:
            if "atom_site" in file[name]:
                category = file[name]["atom_site"]
                found = {key.lower(): key for key in category}
                columns = {
                    column: [str(value) for value in category[found[column.lower()]].as_array(str)]
                    for column in _COLUMNS
                    if column.lower() in found
                }
                return _reading(columns, source, {})
    except ProtquantError:
        raise
    except Exception as error:  # a damaged file may raise any exception in the decoder
        raise ProtquantError(
            f"{source}: cannot be read as BinaryCIF ({type(error).__name__}: {error}). Is the file complete?"
        ) from error
    raise _no_atoms(source, list(file))


def _no_atoms(source: str, blocks: Sequence[str]) -> ProtquantError:
    named = f" of {len(blocks)} ({', '.join(blocks[:5])})" if blocks else ""
    return ProtquantError(f"{source}: has no atoms: no data block{named} has the table _atom_site.")


def _reading(columns: Columns, source: str, sequences: dict[str, list[str]]) -> Reading:
    _check_lengths(columns, source)
    table = _table(columns, source)
    models = columns.get("pdbx_PDB_model_num", [])
    if (count := len(set(models))) < 2:
        return Reading(table, sequences, [])
    first = np.array([model == models[0] for model in models], dtype=bool)
    return Reading(table[first], sequences, [f"the first of {count} models is read"])


def _check_lengths(columns: Columns, source: str) -> None:
    """Refuse overlong names, because an array of strings has room for the longest one in every row."""
    for name, values in columns.items():
        row, value = max(enumerate(values), key=lambda each: len(each[1]), default=(0, ""))
        if len(value) > _LONGEST:
            raise ProtquantError(f"{source}: row {row + 1} of _atom_site: {name} has {len(value)} characters.")


def _table(columns: Columns, source: str) -> AtomTable:
    if missing := [name for name in _COORDINATES if name not in columns]:
        raise ProtquantError(f"{source}: _atom_site has no column {missing[0]}, so there are no coordinates.")
    count = len(columns["Cartn_x"])
    for kind in ("atom", "comp"):
        if not any(f"{namer}_{kind}_id" in columns for namer in ("label", "auth")):
            what = "atoms" if kind == "atom" else "residues"
            raise ProtquantError(f"{source}: _atom_site has no names of {what} (label_{kind}_id or auth_{kind}_id).")

    def column(*names: str) -> list[str]:
        """Return, row by row, the first value that is not missing in these columns; empty if all are missing."""
        found = [columns[name] for name in names if name in columns]
        if not found:
            return [""] * count
        return [next((value for value in values if value not in _UNKNOWN), "") for values in zip(*found, strict=True)]

    position = np.stack([_numbers(columns[name], source, name) for name in _COORDINATES], axis=1)
    chain = column("auth_asym_id", "label_asym_id")
    molecule = column("label_asym_id", "auth_asym_id")
    atom, residue = column("auth_atom_id", "label_atom_id"), column("auth_comp_id", "label_comp_id")
    altloc = column("label_alt_id")
    names = column("auth_seq_id", "label_seq_id")
    _count_unnumbered(names, list(zip(molecule, residue, strict=True)), list(zip(atom, altloc, strict=True)))
    number, insertion = _residue_numbers(names, column("pdbx_PDB_ins_code"))
    return AtomTable(
        chain=strings(chain),
        part=_parts(molecule),
        number=number,
        insertion=strings(insertion),
        residue=strings(residue),
        atom=strings(atom),
        altloc=strings(altloc),
        element=strings([_element(symbol, name) for symbol, name in zip(column("type_symbol"), atom, strict=True)]),
        hetero=np.array([group.upper() == "HETATM" for group in column("group_PDB")], dtype=bool),
        occupancy=_numbers(columns.get("occupancy", []), source, "occupancy", count, 1.0),
        b_factor=_numbers(columns.get("B_iso_or_equiv", []), source, "B_iso_or_equiv", count, 0.0),
        position=position,
    )


def _numbers(
    values: Sequence[str], source: str, name: str, count: int | None = None, unknown: float = np.nan
) -> NDArray[np.float64]:
    """Return the values as numbers, without the standard uncertainties in parentheses that may follow them."""
    if not values:
        return np.full(count or 0, unknown)
    result = np.array([gemmi.cif.as_number(value) for value in values], dtype=float)
    for row in np.flatnonzero(np.isnan(result)).tolist():
        if values[row] not in _UNKNOWN:
            raise ProtquantError(
                f"{source}: row {row + 1} of _atom_site: {name} is {values[row]!r}, which is not a number."
            )
        result[row] = unknown
    return result


def _count_unnumbered(names: list[str], residues: Sequence[object], atoms: Sequence[object]) -> None:
    """Number residues without a number, in place; a repeated atom name begins a new residue."""
    count, current, seen = 0, None, set[object]()
    for row, name in enumerate(names):
        if name:
            current = None
            continue
        if residues[row] != current or atoms[row] in seen:
            count, current, seen = count + 1, residues[row], set()
        seen.add(atoms[row])
        names[row] = str(count)


def _residue_numbers(names: Sequence[str], insertions: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Return numbers and insertion codes; some programs write both in one column."""
    numbers = np.zeros(len(names), dtype=np.int64)
    for row, name in enumerate(names):
        digits = name.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
        try:
            numbers[row] = int(digits or "0")
        except (ValueError, OverflowError):
            continue
        insertions[row] = insertions[row] or name[len(digits) :]
    return numbers, insertions


def _parts(molecule: Sequence[str]) -> NDArray[np.int64]:
    names = strings(molecule)
    changes = np.zeros(len(names), dtype=np.int64)
    changes[1:] = names[1:] != names[:-1]
    return np.cumsum(changes)


def _element(symbol: str, atom: str) -> str:
    """Return the element by its symbol, or else by the name of the atom, as in amino acids."""
    return symbol.upper() or atom.lstrip("0123456789")[:1].upper()


def _sequences(block: gemmi.cif.Block, columns: Columns) -> dict[str, list[str]]:
    entities: dict[str, dict[str, str]] = {}
    for entity, number, name in block.find("_entity_poly_seq.", ["entity_id", "num", "mon_id"]):
        # If a place has residues of several types, take the first.
        if number not in (seen := entities.setdefault(entity, {})):
            seen[number] = name
    asyms = {str(row[0]): str(row[1]) for row in block.find("_struct_asym.", ["id", "entity_id"])}
    chains = dict.fromkeys(zip(columns.get("label_asym_id", []), columns.get("auth_asym_id", []), strict=False))
    polymers = [(asyms[asym], auth) for asym, auth in chains if asyms.get(asym) in entities]
    # Leave out a name that two polymers share, because their sequences cannot be distinguished.
    uses = Counter(auth for _, auth in polymers)
    return {auth: list(entities[entity].values()) for entity, auth in polymers if uses[auth] == 1}
