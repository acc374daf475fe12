"""`protquant quantize`, and the other commands on what it makes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from protquant import cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(esm2_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "w4"
    result = run("quantize", "-m", esm2_checkpoint, "-q", "w4", "-o", folder, "--sites")
    assert result.exit_code == 0, result.output
    assert "layers.0.attn.q_proj.weight" in result.stdout
    assert "w4: " in result.stdout
    assert "MB on disk" in result.stdout
    return folder


def test_one_document(esm2_checkpoint: Path, calibration_file: Path, tmp_path: Path) -> None:
    common = ("quantize", "-m", esm2_checkpoint, "-o", tmp_path / "out", "--json")
    result = run(*common, "-q", "w8a8-uniform", "--calibration", calibration_file)
    document = json.loads(result.stdout)
    assert document["recipe"]["name"] == "w8a8-uniform"
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["layers.0.safetensors", "layers.1.safetensors", "model.safetensors", "scheme.json"]
    again = run(*common, "-q", "w8")
    assert again.exit_code == 2
    assert "already exists and is not empty" in again.stderr
    assert json.loads(run(*common, "-q", "w8", "--overwrite").stdout)["recipe"]["name"] == "w8"


def test_inspect_and_contacts_take_the_folder(folder: Path, tmp_path: Path) -> None:
    inspected = run("inspect", "-m", folder)
    assert inspected.exit_code == 0, inspected.output
    assert "w4: " in inspected.stdout
    fasta = tmp_path / "in.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n")
    result = run("contacts", "-i", fasta, "-o", tmp_path / "out", "-m", folder, "--no-plots", "--json")
    assert [row["recipe"] for row in json.loads(result.stdout)["targets"]] == ["w4"]


def test_a_recipe_on_the_folder_is_refused(folder: Path, structures_folder: Path) -> None:
    refused = run("inspect", "-m", folder, "-q", "w8")
    assert refused.exit_code == 2
    assert "is quantized already, by w4" in refused.stderr
    result = run("evaluate", "-m", folder, "--task", "contacts", "--structures", structures_folder, "--json")
    assert [record["recipe"] for record in json.loads(result.stdout)["records"]] == ["w4"]
