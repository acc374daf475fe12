"""Files of scores for other programs: the ipTM is there where it is known, and nothing that is not finite."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protquant.errors import ProtquantError
from protquant.proteins import (
    Prediction,
    with_expected_error,
    write_colabfold_pae,
    write_colabfold_scores,
    write_iptm_table,
    write_pae_table,
    write_plddt_table,
)


@pytest.fixture
def complex_prediction(predict: Callable[..., Prediction]) -> Prediction:
    return predict("MKW:GAV", header="pair")


def test_the_iptm_of_a_complex_is_written(complex_prediction: Prediction, tmp_path: Path):
    prediction = replace(complex_prediction, iptm=np.float32(0.4567))
    path = write_iptm_table(prediction, tmp_path / "pair_iptm.tsv")
    assert path is not None
    assert path.read_text() == "0\t0.457\n"
    assert json.loads(write_colabfold_scores(prediction, tmp_path / "scores.json").read_text())["iptm"] == 0.46


def test_an_iptm_that_is_not_known_is_not_written(complex_prediction: Prediction, tmp_path: Path):
    prediction = replace(complex_prediction, iptm=float("nan"))
    assert write_iptm_table(prediction, tmp_path / "pair_iptm.tsv") is None
    assert "iptm" not in json.loads(write_colabfold_scores(prediction, tmp_path / "scores.json").read_text())
    assert not (tmp_path / "pair_iptm.tsv").exists()


def test_without_an_aligned_error_colabfold_scores_have_plddt_only(complex_prediction: Prediction, tmp_path: Path):
    scores = json.loads(write_colabfold_scores(replace(complex_prediction, pae=None), tmp_path / "s.json").read_text())
    assert list(scores) == ["plddt"]


@pytest.mark.parametrize("write", [write_colabfold_scores, write_colabfold_pae, write_pae_table])
def test_an_aligned_error_that_is_not_finite_is_refused(complex_prediction: Prediction, tmp_path: Path, write):
    errors = np.array(complex_prediction.pae)
    errors[0, 1] = np.inf
    with pytest.raises(ProtquantError, match=r"out: the predicted aligned error of .* is not finite"):
        write(replace(complex_prediction, pae=errors), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_positions_count_residues_without_atoms(predict: Callable[..., Prediction], tmp_path: Path):
    text = write_plddt_table(predict("MXK:WX"), tmp_path / "plddt.tsv").read_text()
    assert [line.split("\t")[0] for line in text.splitlines()] == ["Positions", "0", "2", "3"]


def test_b_factors_that_are_no_plddt_are_not_written_as_such(complex_prediction: Prediction, tmp_path: Path):
    with pytest.raises(ValueError, match="the B-factors are not pLDDT"):
        write_plddt_table(with_expected_error(complex_prediction), tmp_path / "plddt.tsv")
