from pathlib import Path

import pytest

from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.predicting import fold
from protquant.preparing import calibration_sequences, gather_statistics, quantize
from protquant.proteins import AMINO_ACIDS
from protquant.quant import needs_statistics, plan


def test_the_shipped_proteins_are_the_default():
    sequences = calibration_sequences()
    assert len(sequences) >= 10
    assert all(set(sequence) <= set(AMINO_ACIDS) for sequence in sequences)
    assert calibration_sequences(limit=3) == sequences[:3]


def test_a_file_without_a_usable_record_is_named(tmp_path: Path):
    (tmp_path / "bad.fasta").write_text(">a\nM-K\n>b\nM1K\n")
    with pytest.raises(ProtquantError, match=r"bad.fasta: none of its 2 records can be used"):
        calibration_sequences(tmp_path / "bad.fasta")


@pytest.mark.parametrize(
    ("recipe", "needed"), [("fp32", False), ("w8", False), ("bf16", False), ("w8a8-uniform", True)]
)
def test_only_frozen_ranges_of_activations_need_statistics(esmfold: ESMFold, recipe: str, needed: bool):
    assert needs_statistics(plan(esmfold, recipe)) is needed


def test_statistics_gathered_once_serve_as_well_as_calibrating_each_time(esmfold: ESMFold):
    sequences = ["GIVEQCCTSICSLYQLENYCN"]
    statistics = gather_statistics(esmfold, sequences)
    shared, _ = quantize(esmfold, "w8a8-uniform", statistics=statistics)
    own, report = quantize(esmfold, "w8a8-uniform", sequences)
    assert report.activation_bits == 8
    assert (fold(shared, "MKTAYIAK").atoms.coord == fold(own, "MKTAYIAK").atoms.coord).all()


def test_the_float_model_stays_as_it_was(esmfold: ESMFold):
    before = fold(esmfold, "MKTAYIAK").atoms.coord
    quantize(esmfold, "w8")
    assert (fold(esmfold, "MKTAYIAK").atoms.coord == before).all()
