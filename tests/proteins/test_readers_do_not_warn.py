"""Four programs read both structure files without a warning, and find the same atoms."""

import warnings
from collections.abc import Callable
from pathlib import Path

import gemmi
import modelcif.reader
import numpy as np
import pytest
from Bio.PDB import MMCIFParser, PDBParser
from biotite.structure import AtomArray
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFFile, get_structure

from protquant.proteins import Prediction, with_expected_error, write_atoms, write_mmcif, write_pdb

Names = list[tuple[str, int, str, str]]
Atoms = tuple[Names, np.ndarray]
"""Chain, number and name of the residue, and name of the atom; coordinates and B-factors."""

PAIRS = np.full((3, 3), 0.5)


def made(predict: Callable[..., Prediction], sequence: str = "MKWACDEFGHILNPQRSTVY", **settings: object) -> Prediction:
    return predict(sequence, **settings)


CASES: dict[str, Callable[[Callable[..., Prediction]], Prediction]] = {
    "single": made,
    "complex": lambda predict: made(predict, "MKW:GAX:MKW", iptm=0.5, chain_pair_iptm=PAIRS),
    "warned about": lambda predict: made(
        predict, "MKXW", warnings=("the backbone is broken: 62 % of its; 'neighbors'",)
    ),
    "errors": lambda predict: with_expected_error(made(predict)),
}


def of_biopython(path: Path) -> Atoms:
    parser = MMCIFParser() if path.suffix == ".cif" else PDBParser(PERMISSIVE=False)
    (model,) = parser.get_structure("x", path)
    atoms = list(model.get_atoms())
    residues = [atom.get_parent() for atom in atoms]
    names = [
        (residue.get_parent().id, residue.id[1], residue.get_resname(), atom.get_name())
        for residue, atom in zip(residues, atoms, strict=True)
    ]
    return names, np.array([[*atom.get_coord(), atom.get_bfactor()] for atom in atoms])


def of_gemmi(path: Path) -> Atoms:
    structure = gemmi.read_structure(str(path))  # has to live as long as its atoms are looked at
    found = list(structure[0].all())
    names = [(each.chain.name, each.residue.seqid.num, each.residue.name, each.atom.name) for each in found]
    return names, np.array([[*each.atom.pos.tolist(), each.atom.b_iso] for each in found])


def of_biotite(path: Path) -> Atoms:
    if path.suffix == ".cif":
        return of_array(get_structure(CIFFile.read(path), model=1, extra_fields=["b_factor"]))
    return of_array(PDBFile.read(path).get_structure(model=1, extra_fields=["b_factor"]))


def of_modelcif(path: Path) -> Atoms:
    with path.open(encoding="utf-8") as stream:
        (system,) = modelcif.reader.read(stream)
    (model,) = system.model_groups[0]
    atoms = list(model.get_atoms())
    names = [
        (atom.asym_unit.id, atom.seq_id, atom.asym_unit.entity.sequence[atom.seq_id - 1].id, atom.atom_id)
        for atom in atoms
    ]
    return names, np.array([[atom.x, atom.y, atom.z, atom.biso] for atom in atoms])


def of_array(atoms: AtomArray) -> Atoms:
    columns = (atoms.chain_id, atoms.res_id, atoms.res_name, atoms.atom_name)
    names = list(zip(*(column.tolist() for column in columns), strict=True))
    return names, np.column_stack([atoms.coord, atoms.b_factor])


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        *((".pdb", read) for read in (of_biopython, of_gemmi, of_biotite)),
        *((".cif", read) for read in (of_biopython, of_gemmi, of_biotite, of_modelcif)),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_a_file_is_read_without_a_warning_and_the_same_atoms_come_back(
    predict: Callable[..., Prediction], tmp_path: Path, case: str, suffix: str, read: Callable[[Path], Atoms]
) -> None:
    prediction = CASES[case](predict)
    path = tmp_path / f"x{suffix}"
    if suffix == ".pdb":
        write_pdb(prediction.atoms, path, prediction.remarks())
    else:
        write_mmcif(prediction, path)
    assert_that_it_reads(path, read, prediction.atoms)


@pytest.mark.parametrize("read", [of_biopython, of_gemmi, of_biotite])
@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_so_are_atoms_that_are_no_prediction(
    predict: Callable[..., Prediction], tmp_path: Path, suffix: str, read: Callable[[Path], Atoms]
) -> None:
    atoms = predict("MKW:GAX").atoms
    assert_that_it_reads(write_atoms(atoms, tmp_path / f"x{suffix}", ["superposed on y.pdb"]), read, atoms)


def assert_that_it_reads(path: Path, read: Callable[[Path], Atoms], atoms: AtomArray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names, values = read(path)
    expected_names, expected_values = of_array(atoms)
    assert names == expected_names
    np.testing.assert_allclose(values[:, :3], expected_values[:, :3], rtol=0, atol=5.2e-4)
    np.testing.assert_allclose(values[:, 3], expected_values[:, 3], rtol=0, atol=5.1e-3)
