"""What is written is what others read: gemmi and our reader of structures, json, pandas, and the manifest itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protquant.files import Manifest, write_table
from protquant.proteins import Prediction, atoms_from_atom37, write_mmcif, write_pae, write_pdb
from protquant.structures import load_structure

Atom37 = Callable[[str], tuple[np.ndarray, ...]]

CHAINS = st.lists(st.text("ACDEFGHIKLMNPQRSTVWY", min_size=2, max_size=6), min_size=1, max_size=3).map(":".join)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
# In a manifest a number that is not finite is null, which is a claim of its own.
ROWS = st.dictionaries(
    TEXT, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
few = settings(
    deadline=None,
    max_examples=max(10, settings.default.max_examples // 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@few
@given(sequence=CHAINS, scale=st.floats(-90, 90), offset=st.tuples(*[st.floats(-900, 900)] * 3))
@pytest.mark.parametrize(("write", "name"), [(write_pdb, "x.pdb"), (write_mmcif, "x.cif")])
def test_a_structure_is_read_back(
    tmp_path: Path, atom37: Atom37, write: Callable[..., Path], name: str, sequence: str, scale: float, offset: Any
) -> None:
    positions, mask, plddt = atom37(sequence)
    # A walk, so that neighbors in a chain are bonded.
    positions = positions / 300 + 2.0 * np.arange(len(mask))[:, None, None] / 1.74 + np.array(offset) / 10
    positions = positions.astype(np.float32)
    atoms = atoms_from_atom37(positions, mask, sequence, plddt)
    path = write(atoms if name == "x.pdb" else Prediction("x", "x", sequence, atoms, plddt[:, 1]), tmp_path / name)
    ours = load_structure(path)
    assert ours.sequence == sequence
    assert ours.notes == ()
    np.testing.assert_allclose(ours.ca, positions[:, 1], atol=6e-4)
    model = gemmi.read_structure(str(path))[0]
    read = [(atom.name, atom.pos.tolist(), atom.b_iso) for chain in model for residue in chain for atom in residue]
    assert [name for name, *_ in read] == atoms.atom_name.tolist()
    np.testing.assert_allclose([place for _, place, _ in read], atoms.coord, atol=6e-4)
    np.testing.assert_allclose([b_factor for *_, b_factor in read], atoms.b_factor, atol=6e-3)


@few
@given(length=st.integers(1, 6), largest=st.floats(0, 31.75), seed=st.integers(0, 999))
def test_errors_are_read_back(tmp_path: Path, atom37: Atom37, length: int, largest: float, seed: int) -> None:
    positions, mask, plddt = atom37("M" * length)
    pae = np.random.default_rng(seed).uniform(0, largest, size=(length, length))
    atoms = atoms_from_atom37(positions, mask, "M" * length, plddt)
    path = write_pae(Prediction("x", "x", "M" * length, atoms, plddt[:, 1], pae), tmp_path / "pae.json")
    (document,) = json.loads(path.read_text())
    np.testing.assert_allclose(document["predicted_aligned_error"], pae, atol=0.5)


@few
@given(rows=st.lists(st.fixed_dictionaries({"text": TEXT, "number": st.floats(allow_infinity=False)}), min_size=1))
def test_a_table_is_read_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    read = pd.read_csv(
        write_table(rows, tmp_path / "t.csv"), keep_default_na=False, dtype={"text": str}, na_values={"number": [""]}
    )
    assert read["text"].tolist() == [row["text"] for row in rows]
    np.testing.assert_array_equal(read["number"], [row["number"] for row in rows])


@few
@given(name=st.text("abc_.-1", min_size=1, max_size=9), header=TEXT, error=TEXT, row=ROWS)
def test_a_manifest_is_read_back(
    tmp_path_factory: Any, name: str, header: str, error: str, row: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    manifest = Manifest(folder)
    (folder / "file").write_text(header)
    manifest.record(name, header, "print", [folder / "file"], row)
    manifest.record_failure(f"{name}2", header, "print", error, row)
    read = Manifest.load(folder)
    assert read.entries == manifest.entries
    assert read.is_done(name, "print")
