"""The shipped chains, and folders of the user's own."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from biotite.structure.io.pdbx import BinaryCIFFile, CIFFile, set_structure

from protquant.errors import ProtquantError
from protquant.structures import load_references
from protquant.structures.collection import shipped_folder


def shipped_bytes(name: str) -> bytes:
    return (shipped_folder() / f"{name}.pdb.gz").read_bytes()


def test_fifty_chains_ship_as_their_index_says() -> None:
    references = load_references()
    with (shipped_folder() / "index.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r.name for r in references] == [row["name"] for row in rows]
    assert [r.sequence for r in references] == [row["sequence"] for row in rows]
    assert [len(r) for r in references] == [int(row["length"]) for row in rows]
    assert [r.source for r in references] == [row["source"] for row in rows]
    assert [r.chain_ids for r in references] == [(row["chain"],) for row in rows]
    assert len(references) == 50
    assert sum(map(len, references)) == 6860


def test_shipped_chains_are_complete_backbones_of_standard_residues() -> None:
    for reference in load_references():
        assert set(reference.sequence) <= set("ACDEFGHIKLMNPQRSTVWY")
        assert np.isfinite(reference.backbone).all()
        assert np.isfinite(reference.cb).all()
        assert np.linalg.norm(np.diff(reference.ca, axis=0), axis=1).max() < 4.2
        assert not np.isin(reference.atoms.element, ["H", "D", ""]).any()


def test_limit_takes_the_first() -> None:
    assert [r.name for r in load_references(limit=2)] == ["1ahsA", "1bvyF"]
    with pytest.raises(ProtquantError, match="at least 1"):
        load_references(limit=0)


def test_folder_of_every_format_gives_the_same_structure(tmp_path: Path) -> None:
    (shipped,) = load_references(limit=1)
    packed = shipped_bytes("1ahsA")
    (tmp_path / "a.pdb.gz").write_bytes(packed)
    (tmp_path / "b.ent").write_bytes(gzip.decompress(packed))
    (tmp_path / "c.PDB").write_bytes(gzip.decompress(packed))
    cif, binary = CIFFile(), BinaryCIFFile()
    set_structure(cif, shipped.atoms)
    set_structure(binary, shipped.atoms)
    cif.write(tmp_path / "d.cif")
    (tmp_path / "e.cif.gz").write_bytes(gzip.compress((tmp_path / "d.cif").read_bytes()))
    binary.write(tmp_path / "f.bcif")
    (tmp_path / "g.bcif.gz").write_bytes(gzip.compress((tmp_path / "f.bcif").read_bytes()))
    (tmp_path / "notes.txt").write_text("not a structure")
    references = load_references(tmp_path)
    assert [r.name for r in references] == ["a", "b", "c", "d", "e", "f", "g"]
    for reference in references:
        assert reference.sequence == shipped.sequence
        assert np.allclose(reference.atoms.coord, shipped.atoms.coord, atol=1e-3)
        assert reference.source == str(next(tmp_path.glob(f"{reference.name}.*")))


def test_folder_without_structures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtquantError, match="no structure files"):
        load_references(tmp_path)
    with pytest.raises(ProtquantError, match="no such folder"):
        load_references(tmp_path / "missing")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    packed = shipped_bytes("1ahsA")
    (tmp_path / "x.pdb.gz").write_bytes(packed)
    (tmp_path / "x.pdb").write_bytes(gzip.decompress(packed))
    with pytest.raises(ProtquantError, match="both be called 'x'"):
        load_references(tmp_path)
