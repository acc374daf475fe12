"""Of atoms in several places one is taken, and no residue is lost, whatever the places are called."""

from pathlib import Path

import numpy as np
import pytest

from protquant.structures import load_structure


def placed(line: str, altloc: str, occupancy: float, shift: float = 0.0) -> str:
    return f"{line[:16]}{altloc}{line[17:30]}{float(line[30:38]) + shift:8.3f}{line[38:54]}{occupancy:6.2f}{line[60:]}"


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


@pytest.mark.parametrize("names", ["AB", "12", "ab", "+-", "BA", "XZ"])
def test_places_of_any_name_lose_no_residue(pdb_lines: list[str], tmp_path: Path, names: str):
    numbers = list(dict.fromkeys(line[22:26] for line in pdb_lines))[10:20]
    twice = []
    for line in pdb_lines:
        several = line[22:26] in numbers
        twice += [placed(line, names[0], 0.6), placed(line, names[1], 0.4, 1.0)] if several else [line]
    structure = load_structure(write(tmp_path / "x.pdb", twice))
    expected = load_structure(write(tmp_path / "y.pdb", pdb_lines))
    assert structure.sequence == expected.sequence
    assert np.array_equal(structure.atoms.coord, expected.atoms.coord)
    assert structure.notes == ()


def test_the_most_occupied_place_is_taken_for_the_whole_residue(pdb_lines: list[str], tmp_path: Path):
    first = pdb_lines[0][22:26]
    lines = []
    for line in pdb_lines:
        lines += [placed(line, "A", 0.3), placed(line, "B", 0.7, 1.0)] if line[22:26] == first else [line]
    structure = load_structure(write(tmp_path / "x.pdb", lines))
    expected = load_structure(write(tmp_path / "y.pdb", pdb_lines))
    of_first = slice(0, int(structure.residue_starts[1]))
    assert np.allclose(structure.atoms.coord[of_first, 0], expected.atoms.coord[of_first, 0] + 1.0)


def test_the_c_alpha_stays_where_backbone_and_side_chain_have_other_places(pdb_lines: list[str], tmp_path: Path):
    backbone = ("N", "CA", "C", "O")
    lines = [placed(line, "1" if line[12:16].strip() in backbone else "2", 0.5) for line in pdb_lines]
    structure = load_structure(write(tmp_path / "x.pdb", lines))
    expected = load_structure(write(tmp_path / "y.pdb", pdb_lines))
    assert len(structure) == 40
    assert np.isfinite(structure.ca).all()
    assert len(structure.atoms) == len(expected.atoms)


def test_of_two_types_of_a_residue_the_more_occupied_is_taken_wherever_it_is_listed(
    pdb_lines: list[str], tmp_path: Path
):
    number = pdb_lines[0][22:26]
    first = [line for line in pdb_lines if line[22:26] == number and line[12:16].strip() in ("N", "CA", "C", "O")]
    rest = [line for line in pdb_lines if line[22:26] != number]
    serine = [placed(line[:17] + "SER" + line[20:], "A", 0.4) for line in first]
    threonine = [placed(line[:17] + "THR" + line[20:], "B", 0.6) for line in first]
    for lines in ([*serine, *threonine, *rest], [*serine, *rest, *threonine]):
        structure = load_structure(write(tmp_path / "x.pdb", lines))
        assert structure.sequence[0] == "T"
        assert len(structure) == 40


def test_an_alternative_that_is_marked_as_hetero_counts_as_one(pdb_lines: list[str], tmp_path: Path):
    number = list(dict.fromkeys(line[22:26] for line in pdb_lines))[5]
    lines = []
    for line in pdb_lines:
        if line[22:26] != number:
            lines.append(line)
        else:
            lines.append(placed(line, "A", 0.3))
    lines += [
        "HETATM" + placed(line, "B", 0.7)[6:17] + "MSE" + placed(line, "B", 0.7)[20:]
        for line in pdb_lines
        if line[22:26] == number
    ]
    structure = load_structure(write(tmp_path / "x.pdb", lines))
    assert len(structure) == 40
    assert structure.sequence[5] == "M"
