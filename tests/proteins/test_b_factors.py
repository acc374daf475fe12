"""B-factors that express expected errors."""

from collections.abc import Callable
from pathlib import Path

import gemmi
import numpy as np
import pytest

from protquant.proteins import Prediction, expected_error, with_expected_error, write_mmcif, write_pdb


@pytest.mark.parametrize(
    ("plddt", "b_factor"),
    # Answers in Phenix's own tests (cctbx, mmtbx/regression/tst_process_predicted_model.py), where pi is 3.14159.
    [(70.0, 59.2175263686), (50.0, 293.306328196)],
)
def test_b_factors_are_those_of_phenix(predict: Callable[..., Prediction], plddt: float, b_factor: float) -> None:
    prediction = predict("MKW")
    prediction.atoms.b_factor[:] = plddt
    np.testing.assert_allclose(with_expected_error(prediction).atoms.b_factor, b_factor, rtol=2e-6)


def test_b_factors_stay_in_the_columns_of_pdb_and_the_prediction_as_it_was(
    predict: Callable[..., Prediction], tmp_path: Path
) -> None:
    prediction = predict("MKW")
    prediction.atoms.b_factor[:3] = 0.0, 34.0, 35.0
    before = prediction.atoms.copy()
    changed = with_expected_error(prediction)
    np.testing.assert_allclose(changed.atoms.b_factor[:3], [999.99, 999.99, 973.8], rtol=1e-4)
    assert prediction.atoms == before
    assert prediction.b_factor == "plddt"
    assert with_expected_error(changed) is changed
    read = gemmi.read_structure(str(write_pdb(changed.atoms, tmp_path / "x.pdb")))
    assert [round(each.atom.b_iso, 2) for each in read[0].all()][:2] == [999.99, 999.99]


def test_both_files_say_what_their_b_factors_are(predict: Callable[..., Prediction], tmp_path: Path) -> None:
    prediction = predict("MXK:GA")
    for each, words in ((prediction, "pLDDT of each atom"), (with_expected_error(prediction), "expected error")):
        block = gemmi.cif.read(str(write_mmcif(each, tmp_path / "x.cif"))).sole_block()
        parameters = block.find("_ma_software_parameter.", ["name", "value"])
        told = {gemmi.cif.as_string(row[0]): gemmi.cif.as_string(row[1]) for row in parameters}
        assert words in told["B-factors"]
        write_pdb(each.atoms, tmp_path / "x.pdb", each.remarks())
        assert f"REMARK   6 B-factors: {told['B-factors'][:20]}" in (tmp_path / "x.pdb").read_text()
    metrics = {gemmi.cif.as_string(row[1]): row[0] for row in block.find("_ma_qa_metric.", ["id", "name"])}
    local = block.find("_ma_qa_metric_local.", ["label_asym_id", "label_seq_id", "metric_id", "metric_value"])
    errors = [(row[0], int(row[1]), float(row[3])) for row in local if row[2] == metrics["expected error"]]
    expected = [*zip("AAABB", (1, 2, 3, 1, 2), expected_error(prediction.plddt), strict=True)]
    del expected[1]  # X has no atoms
    assert errors == [(chain, number, pytest.approx(value, abs=5.1e-4)) for chain, number, value in expected]
