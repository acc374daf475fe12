"""`protquant demo` compares float, simulations and integers, and says what it measured."""

import importlib
import json
from pathlib import Path

import pytest

from protquant.errors import ProtquantError
from protquant.measuring import Demonstration, demonstrate
from protquant.measuring.tasks import StructureTask
from protquant.models import ESMFold
from protquant.predicting import FoldRun

MODULE = importlib.import_module("protquant.measuring.demonstration")
COMPARED = [
    ("fp32", "float"),
    ("w8a8-uniform", "simulated"),
    ("w8a8-pwlq", "simulated"),
    ("w8a8-int8", "simulated"),
    ("w8a8-int8", "integer"),
]


@pytest.fixture
def _with_a_small_model(esmfold: ESMFold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "load", lambda _name: esmfold)
    monkeypatch.setattr(MODULE, "calibration_sequences", lambda limit: ["MKTAYIAKQRQISFVKSHFSRQ"][:limit])
    monkeypatch.setattr(
        MODULE, "fold_fasta", lambda _fasta, output, _model, quant, **_: FoldRun(output, settings={"quant": quant})
    )


def compared(shown: Demonstration) -> list[tuple[str, str]]:
    return [(row["recipe"], row["execution"]) for row in shown.rows]


@pytest.mark.usefixtures("_with_a_small_model")
def test_float_simulations_and_integers_fold_the_same_chains(tmp_path: Path):
    shown = demonstrate(tmp_path, limit=2)
    assert compared(shown) == COMPARED
    folded = [[each["target"] for each in shown.targets if each["recipe"] == "fp32"]] * len(COMPARED)
    assert [
        [each["target"] for each in shown.targets if (each["recipe"], each["execution"]) == pair] for pair in COMPARED
    ] == folded
    assert len(folded[0]) == 2
    for row in shown.rows:
        assert row["targets"] == 2
        assert row["seconds"] > 0
        assert row["times_as_fast"] == pytest.approx(shown.rows[0]["seconds"] / row["seconds"])
        assert row["peak_bytes"] is None or row["peak_bytes"] >= 0
    assert shown.rows[0]["tm_to_float"] == pytest.approx(1.0, abs=1e-6)
    assert shown.rows[0]["weight_bytes"] > shown.rows[-1]["weight_bytes"]
    assert shown.notes[0].startswith("Measured on 2 of the 50 chains")
    assert any(note.startswith("Not measured: ") for note in shown.notes)
    assert json.loads(json.dumps(shown.to_dict()))["fold"]["settings"] == {"quant": "w8a8-int8"}


@pytest.mark.usefixtures("_with_a_small_model")
def test_a_model_that_fails_on_a_chain_is_no_part_of_the_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    predict, count = StructureTask.predict, iter(range(100))

    def fail_at_the_third(self: StructureTask, model: ESMFold, target: object) -> object:
        if next(count) == 2:
            raise ProtquantError("does not fit")
        return predict(self, model, target)

    monkeypatch.setattr(StructureTask, "predict", fail_at_the_third)
    shown = demonstrate(tmp_path, limit=2)
    assert compared(shown) == COMPARED
    (failure,) = shown.failures
    assert (failure["recipe"], failure["error"]) == ("w8a8-pwlq", "does not fit")
    assert [row["times_as_fast"] is None for row in shown.rows] == [False, False, True, False, False]
    assert [row["targets"] for row in shown.rows] == [2, 2, 1, 2, 2]


@pytest.mark.usefixtures("_with_a_small_model")
def test_a_float_model_that_folds_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ProtquantError("does not fit")

    monkeypatch.setattr(StructureTask, "predict", fail)
    with pytest.raises(ProtquantError, match="demo: does not fit"):
        demonstrate(tmp_path, limit=1)
