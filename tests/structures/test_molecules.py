"""Two molecules under one name of a chain are two chains, and one that is interrupted is one."""

from pathlib import Path

import gemmi
import pytest

from protquant.structures import Reference, load_structure


def moved(lines: list[str], shift: float, *, number: int = 0, chain: str | None = None) -> list[str]:
    return [
        f"{line[:21]}{chain or line[21]}{int(line[22:26]) + number:4d}{line[26:30]}"
        f"{float(line[30:38]) + shift:8.3f}{line[38:]}"
        for line in lines
    ]


def read(path: Path, *lines: str) -> Reference:
    path.write_text("\n".join([*lines, "END", ""]))
    return load_structure(path)


@pytest.mark.parametrize("chain", [" ", "A"])
@pytest.mark.parametrize("end", [["TER"], []])
def test_numbers_that_begin_again_are_a_second_chain(pdb_lines: list[str], tmp_path: Path, chain: str, end: list[str]):
    first = moved(pdb_lines, 0, chain=chain)
    structure = read(tmp_path / "x.pdb", *first, *end, *moved(first, 30))
    assert len(structure) == 80
    assert structure.chain_ids == (chain.strip(), f"{chain.strip()}2")
    assert structure.chain_sequences[0] == structure.chain_sequences[1]
    (note,) = structure.notes
    begin = structure.residue_numbers[0]
    assert f"chain {chain.strip()!r} is the name of several molecules: the one from residue {begin} on is" in note


def test_a_third_and_a_free_name(pdb_lines: list[str], tmp_path: Path):
    other = moved(pdb_lines, 60, chain="B")
    lines = [*pdb_lines, "TER", *moved(pdb_lines, 30), "TER", *other, "TER", *moved(pdb_lines, 90)]
    assert read(tmp_path / "x.pdb", *lines).chain_ids == ("A", "A2", "B", "A3")


def test_successive_numbers_that_are_not_bonded_are_two_molecules(pdb_lines: list[str], tmp_path: Path):
    structure = read(tmp_path / "x.pdb", *pdb_lines, "TER", *moved(pdb_lines, 30, number=40))
    assert structure.chain_ids == ("A", "A2")


def test_a_chain_that_is_interrupted_is_one(pdb_lines: list[str], tmp_path: Path):
    numbers = [int(line[22:26]) for line in pdb_lines]
    for gap in (0, 5):
        first = [line for line, n in zip(pdb_lines, numbers, strict=True) if n < numbers[0] + 20]
        second = [line for line, n in zip(pdb_lines, numbers, strict=True) if n >= numbers[0] + 20 + gap]
        water = "HETATM 9000  O   HOH A 901       0.000   0.000   0.000  1.00  0.00           O  "
        structure = read(tmp_path / "x.pdb", *first, "TER", *second, "TER", water)
        assert structure.chain_ids == ("A",)
        assert len(structure) == 40 - gap
        assert structure.notes == ()


def test_mmcif_with_one_name_of_the_authors_for_two_chains_has_two(pdb_lines: list[str], tmp_path: Path):
    lines = [*pdb_lines, "TER", *moved(pdb_lines, 30, chain="B")]
    structure = gemmi.read_pdb_string("\n".join(lines))
    structure.setup_entities()
    document = structure.make_mmcif_document()
    column = document[0].find_loop("_atom_site.auth_asym_id")
    for row in range(len(column)):
        column[row] = "A"
    document.write_file(str(tmp_path / "x.cif"))
    assert load_structure(tmp_path / "x.cif").chain_ids == ("A", "A2")


def test_an_atom_that_is_listed_twice_in_a_residue_is_no_second_chain(pdb_lines: list[str], tmp_path: Path):
    structure = read(tmp_path / "x.pdb", *pdb_lines[:4], *pdb_lines[1:4], *pdb_lines[4:])
    assert structure.chain_ids == ("A",)
    assert len(structure) == 40
