"""No residue vanishes without a word."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protquant.errors import ProtquantError
from protquant.structures import load_structure
from protquant.structures.census import take_census
from protquant.structures.read_pdb import read_pdb


def test_residues_that_are_no_amino_acids_are_named(pdb_lines: list[str], tmp_path: Path):
    number = pdb_lines[0][22:26]
    alpha_only = [line for line in pdb_lines if line[22:26] != number or line[12:16] == " CA "]
    lines = [line[:17] + "ZZ9" + line[20:] if line[22:26] == number else line for line in alpha_only]
    path = tmp_path / "x.pdb"
    path.write_text("\n".join(lines))
    structure = load_structure(path)
    assert len(structure) == 39
    assert structure.notes == (
        f"1 of 40 residues with a C-alpha are left out (A {int(number)}): not amino acids, or repeated numbers",
    )


def test_a_reader_that_takes_all_residues_for_one_is_found_out(pdb_lines: list[str], tmp_path: Path):
    path = tmp_path / "x.pdb"
    path.write_text("\n".join(pdb_lines))
    table = read_pdb(path.read_text(), "x.pdb").table
    whole = load_structure(path)
    assert take_census(table, whole, "x.pdb") == []
    one = replace(whole, atoms=whole.atoms[whole.atoms.res_id == whole.residue_numbers[0]])
    with pytest.raises(ProtquantError, match=r"x\.pdb: 39 of 40 residues with a C-alpha are left out"):
        take_census(table, one, "x.pdb")
    collapsed = replace(table, number=np.zeros_like(table.number))
    with pytest.raises(ProtquantError, match=r"x\.pdb: 40 of 40 residues"):
        take_census(collapsed, one, "x.pdb")
