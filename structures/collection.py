"""Sets of reference structures: the chains that ship with protquant, or a folder of the user."""

import csv
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from protquant.errors import ProtquantError
from protquant.structures.reader import SUFFIXES, has_structure_suffix, load_structure, read_structure, structure_name
from protquant.structures.reference import Reference

__all__ = ["load_references", "shipped_folder"]


def shipped_folder() -> Traversable:
    """Return the data folder of the 50 TS50 chains in the installed package."""
    return resources.files("protquant.structures") / "data" / "ts50"


def load_references(folder: str | Path | None = None, limit: int | None = None) -> list[Reference]:
    """Load reference structures.

    Parameters
    ----------
    folder : str or Path, optional
        Folder of ``.pdb`` (``.pdb1``, ...), ``.ent``, ``.cif``, ``.mmcif`` or ``.bcif`` files, plain or gzipped, read
        in order of their names; other files are ignored. By default the 50 chains that ship with protquant,
        in the order of their index.
    limit : int, optional
        Load only the first `limit` structures.

    Returns
    -------
    list of Reference
        Structures with unique names.

    Raises
    ------
    ProtquantError
        If the folder does not exist or has no structures, a file cannot be used, two files would have the same name,
        or `limit` is below 1. A message about a file names it.
    """
    if limit is not None and limit < 1:
        raise ProtquantError(f"limit is {limit}: give a number of structures of at least 1, or leave it out for all.")
    if folder is None:
        return _load_shipped(limit)
    return [load_structure(path) for path in _structure_files(Path(folder))[:limit]]


def _load_shipped(limit: int | None) -> list[Reference]:
    data = shipped_folder()
    with (data / "index.csv").open(encoding="utf-8") as index:
        rows = list(csv.DictReader(index))
    references = []
    for row in rows[:limit]:
        file_name = f"{row['name']}.pdb.gz"
        references.append(read_structure((data / file_name).read_bytes(), file_name, row["source"]))
    return references


def _structure_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ProtquantError(f"{folder}: no such folder. Give a folder of structure files ({', '.join(SUFFIXES)}).")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and has_structure_suffix(path.name))
    if not paths:
        raise ProtquantError(f"{folder}: no structure files. Their names must end in {', '.join(SUFFIXES)}.")
    by_name: dict[str, Path] = {}
    for path in paths:
        name = structure_name(path.name)
        if name in by_name:
            raise ProtquantError(
                f"{path} and {by_name[name].name} would both be called '{name}'. Rename or remove one of them."
            )
        by_name[name] = path
    return paths
