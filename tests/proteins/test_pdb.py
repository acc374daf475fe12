"""PDB files."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from biotite.structure import AtomArray
from biotite.structure.io.pdb import PDBFile
from transformers.models.esm.openfold_utils import residue_constants
from transformers.models.esm.openfold_utils.protein import Protein, to_pdb

from protquant.errors import ProtquantError
from protquant.proteins import Prediction, atoms_from_atom37, write_pdb

Atom37 = Callable[[str], tuple[np.ndarray, ...]]
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
FIELDS = ["b_factor", "occupancy"]


def many_atoms(count: int, chains: list[str] | None = None, numbers: np.ndarray | None = None) -> AtomArray:
    atoms = AtomArray(count)
    atoms.coord[:] = 0
    atoms.atom_name[:] = "CA"
    atoms.element[:] = "C"
    atoms.res_name[:] = "GLY"
    atoms.chain_id = np.array(chains or ["A"] * count)
    atoms.res_id = np.ones(count, dtype=int) if numbers is None else numbers
    return atoms


def test_what_is_written_is_read_back(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    atoms = predict("MKW:GAX:MKW").atoms
    back = PDBFile.read(write_pdb(atoms, tmp_path / "x.pdb")).get_structure(model=1, extra_fields=FIELDS)
    for name in ("chain_id", "res_id", "res_name", "atom_name", "element"):
        np.testing.assert_array_equal(back.get_annotation(name), atoms.get_annotation(name))
    np.testing.assert_allclose(back.coord, atoms.coord, atol=5.1e-4)
    np.testing.assert_allclose(back.b_factor, atoms.b_factor, atol=5.1e-3)
    np.testing.assert_array_equal(back.occupancy, 1)


def test_it_holds_what_the_writer_of_transformers_holds(tmp_path: Path, atom37: Atom37) -> None:
    positions, mask, plddt = atom37(UBIQUITIN)
    types = np.array([residue_constants.restype_order[letter] for letter in UBIQUITIN])
    theirs = to_pdb(Protein(positions, types, mask, np.arange(76) + 1, plddt, chain_index=np.zeros(76, dtype=int)))
    path = write_pdb(atoms_from_atom37(positions, mask, UBIQUITIN, plddt), tmp_path / "x.pdb")
    ours, expected = (
        PDBFile.read(source).get_structure(model=1, extra_fields=FIELDS) for source in (path, io.StringIO(theirs))
    )
    assert ours == expected
    (our_end,), (their_end,) = (
        [line for line in text.splitlines() if line.startswith("TER")] for text in (path.read_text(), theirs)
    )
    assert our_end == their_end.rstrip()


def test_each_chain_ends_with_ter(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    lines = write_pdb(predict("MK:GA").atoms, tmp_path / "x.pdb").read_text().splitlines()
    ends = [number for number, line in enumerate(lines) if line.startswith("TER")]
    assert [lines[number - 1][21] for number in ends] == ["A", "B"]
    assert [lines[number][17:27] for number in ends] == ["LYS A   2", "ALA B   2"]
    serials = [int(line[6:11]) for line in lines if line.startswith(("ATOM", "TER"))]
    assert serials == list(range(1, len(serials) + 1))
    assert lines[-1] == "END   "


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (many_atoms(100_000), "100000 atoms, but the PDB format numbers 99999. Write this target as mmCIF only"),
        (many_atoms(10_000, numbers=np.arange(1, 10_001)), "a chain of 10000 residues"),
        (many_atoms(2, chains=["A", "AA"]), "one-letter names for 62. Write this target as mmCIF only"),
        (AtomArray(0), "has no atoms"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, atoms: AtomArray, message: str) -> None:
    with pytest.raises(ProtquantError) as caught:
        write_pdb(atoms, tmp_path / "x.pdb")
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "1 of 2 atoms have coordinates that are not finite"), (-1000.0, "eight columns"), (1e5, "eight columns")],
)
def test_coordinates_that_do_not_fit_are_refused(tmp_path: Path, value: float, message: str) -> None:
    atoms = many_atoms(2)
    atoms.coord[1, 2] = value
    with pytest.raises(ProtquantError, match=message):
        write_pdb(atoms, tmp_path / "x.pdb")
