"""Forty residues of a real chain, as lines of PDB and as mmCIF, to be spoiled as files of people are."""

import gzip

import gemmi
import pytest

from protquant.structures.collection import shipped_folder

RESIDUES = 40


@pytest.fixture(scope="session")
def pdb_lines() -> list[str]:
    """ATOM records of the first forty residues of 1ahs, chain A."""
    text = gzip.decompress((shipped_folder() / "1ahsA.pdb.gz").read_bytes()).decode()
    atoms = [line for line in text.splitlines() if line.startswith("ATOM")]
    numbers = list(dict.fromkeys(line[22:27] for line in atoms))[:RESIDUES]
    return [line.ljust(80) for line in atoms if line[22:27] in numbers]


@pytest.fixture(scope="session")
def cif_text(pdb_lines: list[str]) -> str:
    """The same as mmCIF, written by gemmi."""
    structure = gemmi.read_pdb_string("\n".join(pdb_lines))
    structure.setup_entities()
    return structure.make_mmcif_document().as_string()
