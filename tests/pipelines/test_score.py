from pathlib import Path

import pytest

from protquant.errors import ProtquantError
from protquant.pipelines import score


def test_a_structure_agrees_with_itself(structures_folder: Path):
    scores = score(structures_folder / "one.pdb", structures_folder / "one.pdb")
    assert list(scores) == ["tm_score", "gdt_ts", "lddt_ca", "rmsd_ca", "n_aligned", "reference_length"]
    assert scores == pytest.approx(
        {"tm_score": 1, "gdt_ts": 1, "lddt_ca": 1, "rmsd_ca": 0, "n_aligned": 28, "reference_length": 28}, abs=1e-6
    )


def test_a_missing_file_is_named(structures_folder: Path):
    with pytest.raises(ProtquantError, match=r"missing\.pdb"):
        score(structures_folder / "missing.pdb", structures_folder / "one.pdb")
