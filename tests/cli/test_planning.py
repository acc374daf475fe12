"""`protquant plan`: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protquant.cli import app


def run(*arguments: str):
    return CliRunner().invoke(app, ["plan", *arguments])


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "in.fasta"
    path.write_text(f">long\n{'MKTAYIAKQR' * 30}\n>short\nGAVLIDE\n")
    return path


def test_the_machine_is_told_of_without_a_file():
    shown = run("-q", "w8a8-int8", "--compare", "fp32")
    assert shown.exit_code == 0, shown.output
    assert "longest" in shown.output
    assert "planning esmfold_v1 by the recipe w8a8-int8" in shown.output
    rows = [line for line in shown.output.splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in rows] == ["w8a8-int8", "fp32"]


def test_a_plan_is_one_json_document(fasta: Path, esmfold_checkpoint: Path):
    shown = CliRunner().invoke(
        app, ["plan", "-i", str(fasta), "-m", str(esmfold_checkpoint), "--compare", "none", "--json", "--no-measure"]
    )
    document = json.loads(shown.stdout)
    assert [row["name"] for row in document["targets"]] == ["short", "long"]
    assert document["settings"]["max_memory"] is None


def test_records_that_do_not_fit_are_named_and_change_the_exit_code(fasta: Path, esmfold_checkpoint: Path):
    shown = run("-i", str(fasta), "-m", str(esmfold_checkpoint), "--max-memory", "64MiB", "--compare", "none")
    assert shown.exit_code == 1
    assert "long: does not fit:" in shown.output
    (row,) = [line for line in shown.output.splitlines() if "│ fp32" in line]
    assert row.split("│")[-2].strip() == "does not fit"


def test_a_quantized_model_has_no_other_recipes(esmfold_checkpoint: Path, calibration_file: Path, tmp_path: Path):
    folder = str(tmp_path / "quantized")
    made = CliRunner().invoke(app, ["quantize", "-m", str(esmfold_checkpoint), "-q", "w8a8-token", "-o", folder])
    assert made.exit_code == 0, made.output
    shown = run("-m", folder, "--execution", "integer")
    assert shown.exit_code == 0, shown.output
    assert next(line for line in shown.output.splitlines() if "│" in line).split("│")[1].strip() == "w8a8-token"
    refused = run("-m", folder, "--compare", "w8a8-int8")
    assert refused.exit_code == 2
    assert "is quantized already, so other recipes cannot be planned" in refused.output
