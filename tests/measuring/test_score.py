"""Two files and their scores, and what is told beside them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from protquant.errors import ProtquantError
from protquant.measuring import score
from protquant.structures import load_structure
from protquant.structures.collection import shipped_folder


@pytest.fixture
def one_chain(tmp_path: Path) -> Path:
    """Forty residues of 1ahs, chain A."""
    text = gzip.decompress((shipped_folder() / "1ahsA.pdb.gz").read_bytes()).decode()
    atoms = [line for line in text.splitlines() if line.startswith("ATOM")]
    numbers = list(dict.fromkeys(line[22:27] for line in atoms))[:40]
    path = tmp_path / "single.pdb"
    path.write_text("\n".join(line for line in atoms if line[22:27] in numbers))
    return path


@pytest.fixture
def complex_file(one_chain: Path, tmp_path: Path) -> Path:
    """The chain and a copy that is 40 angstrom away, called B."""
    lines = one_chain.read_text().splitlines()
    copy = [f"{line[:21]}B{line[22:30]}{float(line[30:38]) + 40:8.3f}{line[38:]}" for line in lines]
    path = tmp_path / "complex.pdb"
    path.write_text("\n".join([*lines, "TER", *copy]))
    return path


def test_a_structure_agrees_with_itself(structures_folder: Path):
    scores = score(structures_folder / "one.pdb", structures_folder / "one.pdb")
    six = {"tm_score": 1, "gdt_ts": 1, "lddt_ca": 1, "rmsd_ca": 0, "n_aligned": 28, "reference_length": 28}
    assert {name: scores[name] for name in six} == pytest.approx(six, abs=1e-6)
    assert scores["chains"] == [["A", "A"]]
    assert scores["unmatched_chains"] == scores["unmatched_reference_chains"] == []
    assert scores["full_length"] is scores["tm_score_full"] is scores["gdt_ts_full"] is None


def test_chains_that_are_not_matched_are_told_and_may_be_chosen(
    complex_file: Path, one_chain: Path, capsys: pytest.CaptureFixture[str]
):
    scores = score(one_chain, complex_file)
    assert scores["tm_score"] == pytest.approx(0.5, abs=1e-6)
    assert scores["unmatched_reference_chains"] == ["B"]
    assert "not matched: chain B, and its residues count as not predicted; --reference-chain" in capsys.readouterr().err
    chosen = score(one_chain, complex_file, reference_chains=["B"])
    assert chosen["tm_score"] == pytest.approx(1, abs=1e-6)
    assert chosen["chains"] == [["A", "B"]]
    assert score(complex_file, one_chain, chains=["A"])["unmatched_chains"] == []
    with pytest.raises(ProtquantError, match="there is no chain 'Q'; there are A, B"):
        score(one_chain, complex_file, reference_chains=["Q"])


def test_the_whole_sequence_of_the_reference_counts_too_where_its_file_has_it(one_chain: Path, tmp_path: Path):
    lines = one_chain.read_text()
    names = [line[17:20] for line in lines.splitlines() if line[12:16] == " CA "]
    full = [*names, *["GLY"] * 60]
    rows = [full[k : k + 13] for k in range(0, len(full), 13)]
    sequence = [f"SEQRES {k + 1:3d} A {len(full):4d}  {' '.join(row)}" for k, row in enumerate(rows)]
    reference = tmp_path / "x.pdb"
    reference.write_text("\n".join([*sequence, lines]))
    scores = score(one_chain, reference)
    assert scores["full_length"] == 100
    assert scores["tm_score"] == pytest.approx(1, abs=1e-6)
    assert scores["tm_score_full"] == pytest.approx(0.4, abs=1e-6)
    assert scores["gdt_ts_full"] == pytest.approx(0.4)


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_the_superposition_is_saved(complex_file: Path, one_chain: Path, tmp_path: Path, suffix: str):
    moved = tmp_path / f"moved.{suffix}"
    score(one_chain, complex_file, reference_chains=["B"], superposed=moved)
    second, found = load_structure(complex_file).of_chains(["B"]), load_structure(moved)
    assert np.allclose(found.ca, second.ca, atol=0.01)
    assert np.array_equal(found.atoms.b_factor, load_structure(one_chain).atoms.b_factor)
    assert "superposed on complex: TM-score 1.0000" in moved.read_text()


def test_the_superposition_goes_to_a_structure_and_never_over_the_reference(one_chain: Path, tmp_path: Path):
    with pytest.raises(ProtquantError, match="is one of the two structures"):
        score(one_chain, one_chain, superposed=one_chain)
    with pytest.raises(ProtquantError, match=r"x\.txt: the name must end in one of \.pdb"):
        score(one_chain, one_chain, superposed=tmp_path / "x.txt")


def test_a_missing_file_is_named(structures_folder: Path):
    with pytest.raises(ProtquantError, match=r"missing\.pdb"):
        score(structures_folder / "missing.pdb", structures_folder / "one.pdb")
