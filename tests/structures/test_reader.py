"""Reading structure files: what is kept, what is dropped, what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from protquant.errors import ProtquantError
from protquant.structures import load_structure
from protquant.structures.collection import shipped_folder

BACKBONE = {"N": (0.0, 0.0, 0.0), "CA": (1.46, 0.0, 0.0), "C": (2.0, 1.4, 0.0), "O": (1.3, 2.4, 0.0)}


def atom_line(
    atom: str,
    residue: str,
    number: int,
    position: tuple[float, float, float],
    *,
    chain: str = "A",
    record: str = "ATOM",
    altloc: str = " ",
    insertion: str = " ",
    occupancy: float = 1.0,
    element: str = "",
) -> str:
    x, y, z = position
    name = f" {atom:<3s}" if len(element) < 2 else f"{atom:<4s}"
    return (
        f"{record:<6s}{1:5d} {name}{altloc}{residue:>3s} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}  0.00          {element or atom[0]:>2s}"
    )


def residue_lines(residue: str, number: int, step: int, **columns: str) -> list[str]:
    """A backbone residue, 3.8 angstrom per `step` along x."""
    return [atom_line(atom, residue, number, (x + 3.8 * step, y, z), **columns) for atom, (x, y, z) in BACKBONE.items()]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def test_selenomethionine_reads_as_methionine(tmp_path: Path) -> None:
    mse = residue_lines("MSE", 2, 1, record="HETATM")
    mse.append(atom_line("SE", "MSE", 2, (5.0, 2.0, 2.0), record="HETATM", element="SE"))
    path = write(tmp_path / "x.pdb", *residue_lines("ALA", 1, 0), *mse, *residue_lines("GLY", 3, 2))
    structure = load_structure(path)
    assert structure.sequence == "AMG"
    assert np.allclose(structure.atom_coordinates("SD")[1], (5.0, 2.0, 2.0))
    assert not structure.atoms.hetero.any()


def test_waters_ions_nucleotides_and_free_amino_acids_are_dropped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.pdb",
        *residue_lines("ALA", 1, 0),
        *residue_lines("GLY", 2, 1),
        atom_line("P", "DA", 1, (30.0, 0.0, 0.0), chain="B"),
        atom_line("O", "HOH", 301, (9.0, 9.0, 9.0), record="HETATM"),
        atom_line("CA", "CA", 302, (8.0, 8.0, 8.0), record="HETATM", element="CA"),
        *residue_lines("GLU", 303, 10, record="HETATM"),
        atom_line("H", "GLY", 2, (4.0, 1.0, 1.0)),
    )
    structure = load_structure(path)
    assert structure.sequence == "AG"
    assert len(structure.atoms) == 8


def test_highest_occupancy_wins_and_only_one_residue_of_a_mixture_is_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.pdb",
        *residue_lines("ALA", 1, 0),
        atom_line("CB", "ALA", 1, (1.0, 1.0, 1.0), altloc="A", occupancy=0.3),
        atom_line("CB", "ALA", 1, (2.0, 2.0, 2.0), altloc="B", occupancy=0.7),
        *residue_lines("SER", 2, 1, altloc="A"),
        *residue_lines("THR", 2, 1, altloc="B"),
    )
    structure = load_structure(path)
    assert structure.sequence == "AS"
    assert np.allclose(structure.cb[0], (2.0, 2.0, 2.0))


def test_insertion_codes_and_negative_numbers_are_residues_of_their_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.pdb",
        *residue_lines("GLY", -1, 0),
        *residue_lines("GLY", 52, 1),
        *residue_lines("GLY", 52, 2, insertion="A"),
        *residue_lines("GLY", 7, 3),
    )
    assert load_structure(path).sequence == "GGGG"


def test_chains_are_joined_by_a_colon_and_their_atoms_brought_together(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.pdb",
        *residue_lines("ALA", 1, 0, chain="B"),
        *residue_lines("TRP", 1, 10, chain="A"),
        *residue_lines("MSE", 2, 1, chain="B", record="HETATM"),
    )
    structure = load_structure(path)
    assert structure.sequence == "AM:W"
    assert structure.chain_ids == ("B", "A")
    assert structure.chain_index.tolist() == [0, 0, 1]
    assert len(structure) == 3


def test_names_of_protonation_states_and_unknown_residues_are_understood(tmp_path: Path) -> None:
    names = ("HSD", "CYX", "SEC", "UNK", "ZZ9")
    lines = [line for i, name in enumerate(names) for line in residue_lines(name, i + 1, i)]
    assert load_structure(write(tmp_path / "x.pdb", *lines)).sequence == "HCCXX"


def test_missing_atoms_are_nan_and_missing_cb_is_ideal(tmp_path: Path) -> None:
    lines = residue_lines("ALA", 1, 0)[1:] + residue_lines("ALA", 2, 1)
    structure = load_structure(write(tmp_path / "x.pdb", *lines))
    assert np.isnan(structure.backbone[0, 0]).all()
    assert np.isnan(structure.cb[0]).all()
    assert np.linalg.norm(structure.cb[1] - structure.ca[1]) == pytest.approx(1.53, abs=0.05)


def test_ideal_cb_is_where_the_real_one_is() -> None:
    structure = load_structure(Path(str(shipped_folder() / "1ahsA.pdb.gz")))
    without = structure.atoms[structure.atoms.atom_name != "CB"]
    bare = type(structure)(structure.name, structure.sequence, without, structure.source)
    deviation = np.linalg.norm(bare.cb - structure.cb, axis=1)
    assert deviation.mean() < 0.2


def test_only_the_first_model_is_read(tmp_path: Path) -> None:
    lines = ["MODEL        1", *residue_lines("ALA", 1, 0), "ENDMDL", "MODEL        2", *residue_lines("ALA", 1, 9)]
    structure = load_structure(write(tmp_path / "x.pdb", *lines, "ENDMDL"))
    assert np.allclose(structure.ca, [BACKBONE["CA"]])


def test_mmcif_without_occupancy_is_read(tmp_path: Path) -> None:
    columns = ("group_PDB", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
               "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "auth_seq_id", "auth_asym_id",
               "pdbx_PDB_model_num")  # fmt: skip
    rows = [f"ATOM {a[0]} {a} A ALA A 1 ? {x} {y} {z} 1 A 1" for a, (x, y, z) in BACKBONE.items()]
    path = tmp_path / "x.cif"
    path.write_text("\n".join(["data_x", "loop_", *(f"_atom_site.{c}" for c in columns), *rows, "#", ""]))
    assert load_structure(path).sequence == "A"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("water.pdb", (atom_line("O", "HOH", 1, (0.0, 0.0, 0.0), record="HETATM") + "\nEND\n").encode()),
        ("empty.pdb", b""),
        ("empty.cif", b""),
        ("broken.pdb", b"ATOM      1  CA  ALA A   1      xx.xxx   0.000   0.000  1.00  0.00           C\n"),
        ("text.cif", b"this is no structure\n"),
        ("cut.pdb.gz", gzip.compress(b"ATOM" * 1000, mtime=0)[:20]),
        ("cut.bcif", b"\x81\xa4"),
        ("plain.pdb.gz", b"ATOM"),
    ],
)
def test_unusable_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ProtquantError, match=name):
        load_structure(tmp_path / name)


def test_missing_file_and_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtquantError, match="no such file"):
        load_structure(tmp_path / "x.pdb")
    (tmp_path / "x.xyz").write_text("2\nwater\nO 0 0 0\n")
    with pytest.raises(ProtquantError, match="neither PDB, mmCIF nor BinaryCIF"):
        load_structure(tmp_path / "x.xyz")
    with pytest.raises(ProtquantError, match="is a folder"):
        load_structure(tmp_path)
