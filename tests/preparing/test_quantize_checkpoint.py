"""A quantized checkpoint is made in one call, and is a model like any other."""

import json
from pathlib import Path

import pytest

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.measuring import evaluate, inspect_model
from protquant.predicting import contacts_fasta, fold_fasta, predict_contacts
from protquant.preparing import quantize, quantize_checkpoint
from protquant.preparing.quantize import calibration_sequences

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"


@pytest.fixture(scope="module")
def esmfold_w8(esmfold_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "esmfold-w8"
    quantize_checkpoint(str(esmfold_checkpoint), folder, "w8")
    return folder


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "in.fasta"
    path.write_text(f">a\n{SEQUENCE}\n")
    return path


def test_the_checkpoint_computes_what_quantizing_at_once_gives(
    esm2_checkpoint: Path, calibration_file: Path, tmp_path: Path
) -> None:
    report, document = quantize_checkpoint(
        str(esm2_checkpoint), tmp_path / "out", "w8a8-uniform", calibration=calibration_file
    )
    model, _ = quantize(load(esm2_checkpoint), "w8a8-uniform", calibration_sequences(calibration_file))
    expected = predict_contacts(model, SEQUENCE)
    assert (predict_contacts(load(tmp_path / "out"), SEQUENCE) == expected).all()
    assert document["weight_bytes"] == report.weight_bytes < document["float_weight_bytes"]
    assert document["bytes_on_disk"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert json.dumps(document)


def test_refused_before_the_work(esm2_checkpoint: Path, esmfold_w8: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ProtquantError, match="already exists and is not empty"):
        quantize_checkpoint("no such model", tmp_path, "w8")
    with pytest.raises(ProtquantError, match="is the float model itself, which would be lost"):
        quantize_checkpoint(str(esm2_checkpoint), esm2_checkpoint, "w8", overwrite=True)
    with pytest.raises(ProtquantError, match="is quantized already, by w8; leave the recipe out, or name the float"):
        quantize_checkpoint(str(esmfold_w8), tmp_path / "again", "w4")


def test_inspect_shows_the_report_that_was_saved(esmfold_checkpoint: Path, esmfold_w8: Path) -> None:
    expected, document = inspect_model(str(esmfold_checkpoint), "w8")
    report, saved = inspect_model(str(esmfold_w8))
    assert report.sites == expected.sites
    assert saved["recipe"] == document["recipe"]
    assert saved["memory"].keys() == document["memory"].keys()


def test_it_folds_under_the_name_of_its_recipe_and_is_not_taken_for_the_float_model(
    esmfold_checkpoint: Path, esmfold_w8: Path, fasta: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    fold_fasta(fasta, output, str(esmfold_checkpoint), plots=False)
    run = fold_fasta(fasta, output, str(esmfold_w8), plots=False)
    assert run.skipped == []
    assert [(row["recipe"], row["execution"]) for row in run.rows] == [("w8", "simulated")]
    assert fold_fasta(fasta, output, str(esmfold_w8), plots=False).skipped == ["a"]


def test_its_language_model_predicts_contacts(esmfold_w8: Path, fasta: Path, tmp_path: Path) -> None:
    document = contacts_fasta(fasta, tmp_path / "out", str(esmfold_w8), plots=False)
    assert [target["recipe"] for target in document["targets"]] == ["w8"]


def test_another_recipe_on_it_is_an_error(esmfold_w8: Path, fasta: Path, tmp_path: Path) -> None:
    for command in (
        lambda: fold_fasta(fasta, tmp_path / "out", str(esmfold_w8), "w4"),
        lambda: contacts_fasta(fasta, tmp_path / "out", str(esmfold_w8), "w4"),
        lambda: inspect_model(str(esmfold_w8), "w4"),
        lambda: evaluate([str(esmfold_w8)], ["w4"]),
    ):
        with pytest.raises(ProtquantError, match="is quantized already, by w8"):
            command()


def test_it_is_evaluated_beside_its_float_model_and_drifts_from_that(
    esmfold_checkpoint: Path, esmfold_w8: Path, structures_folder: Path
) -> None:
    together = evaluate(
        [str(esmfold_w8), str(esmfold_checkpoint)], ["w8"], "contacts", structures=structures_folder
    ).records
    assert [record["recipe"] for record in together] == ["fp32", "w8", "w8"]
    assert together[2]["contact_drift"] == together[1]["contact_drift"] > 0
    assert together[2]["weight_bytes"] > together[1]["weight_bytes"]  # all of it, not the language model alone
    alone = evaluate([str(esmfold_w8)], ["fp32"], "contacts", structures=structures_folder)
    assert [record["recipe"] for record in alone.records] == ["w8"]
    assert alone.records[0]["contact_drift"] != alone.records[0]["contact_drift"]  # NaN: nothing to drift from
    assert any("contact_drift" in note for note in alone.notes)
