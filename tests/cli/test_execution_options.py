"""`--execution` and `--backend`: what is asked for runs, and what ran is told."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from protquant import cli
from protquant.integer import integer_claim
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.quant import available_recipes, load_recipe

KERNEL = ReferenceBackend().kernel


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def document(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "in.fasta"
    path.write_text(">a\nMKTAYIAKQR\n")
    return path


@pytest.fixture(scope="module")
def folder(esmfold_checkpoint: Path, calibration_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the recipe that asks for integers."""
    path = tmp_path_factory.mktemp("quantized") / "int8"
    given = ("-m", esmfold_checkpoint, "-q", "w8a8-int8", "--calibration", calibration_file, "-o", path)
    result = run("quantize", *given)
    assert result.exit_code == 0, result.output
    return path


def test_a_recipe_that_asks_for_integers_folds_on_them(folder: Path, fasta: Path, tmp_path: Path):
    common = ("fold", "-i", fasta, "-o", tmp_path / "out", "-m", folder, "--num-recycles", 0, "--no-plots")
    result = run(*common, "--backend", "reference")
    assert result.exit_code == 0, result.output
    assert f"parts on integers ({KERNEL})" in result.stderr
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["execution"], row["kernels"].split(";")[0]) == ("integer", KERNEL)
    assert "linear by reference" in row["operations"]
    again = document(*common, "--backend", "reference")
    assert (again["skipped"], again["settings"]["execution"], again["settings"]["kernels"]) == (
        ["a"],
        "integer",
        KERNEL,
    )
    assert again["execution"] == {}
    # Done by other kernels, or by none, it is done anew.
    simulated = document(*common, "--execution", "simulate")
    assert simulated["skipped"] == []
    assert [(p["execution"], p["kernels"]) for p in simulated["predictions"]] == [("simulated", "torch")]
    other = document(*common, "--backend", "cpu")
    assert other["skipped"] == []
    assert other["execution"]["parts"][0].keys() == {"path", "runs", "what"}
    assert other["execution"]["weight_bytes"] > other["execution"]["weight_elements"]


def test_contacts_on_integers(folder: Path, fasta: Path, tmp_path: Path):
    common = ("contacts", "-i", fasta, "-o", tmp_path / "out", "-m", folder, "--no-plots")
    told = document(*common)
    assert [row["execution"] for row in told["targets"]] == ["integer"]
    assert told["execution"]["summary"]
    assert "execution,kernels,operations" in (tmp_path / "out" / "targets.csv").read_text()
    assert document(*common, "--execution", "simulate")["targets"][0]["execution"] == "simulated"


def test_evaluate_has_what_ran_in_its_table_and_the_float_model_beside(
    esmfold_checkpoint: Path, structures_folder: Path, calibration_file: Path, tmp_path: Path
):
    given = ("-m", esmfold_checkpoint, "--structures", structures_folder, "--calibration", calibration_file)
    table = tmp_path / "table.csv"
    told = document(
        *("evaluate", *given, "--task", "contacts", "--limit", 1, "-o", table),
        *("-q", "w8a8-int8", "-q", "w8", "--execution", "integer", "--backend", "reference"),
    )
    ran = {record["recipe"]: (record["execution"], record["kernels"]) for record in told["records"]}
    assert ran["fp32"] == ("float", "torch")
    assert ran["w8a8-int8"][0] == "integer"
    # Weights alone: everything is simulated, and it is said.
    assert ran["w8"][0] == "simulated"
    assert "parts simulated" in ran["w8"][1]
    assert any("w8a8-int8: " in note and "parts on integers" in note for note in told["notes"])
    assert {each["recipe"] for each in told["executions"]} == {"w8a8-int8", "w8"}
    assert all("in float" in part["what"] for part in told["executions"][1]["parts"] if part["path"].endswith("q_proj"))
    with table.open(newline="") as stream:
        assert [row["execution"] for row in csv.DictReader(stream)] == ["float", "integer", "simulated"]


def test_inspect_says_of_every_part_what_it_runs_on_and_why(folder: Path):
    shown = run("inspect", "-m", folder, "--backend", "reference")
    assert shown.exit_code == 0, shown.output
    assert "trunk.blocks.0.tri_mul_out" in shown.stdout
    assert "parts on integers" in shown.stdout
    told = document("inspect", "-m", folder, "--execution", "simulate")["execution"]
    assert (told["execution"], told["parts"]) == ("simulated", [])


def test_inspect_of_a_recipe_names_what_is_left(esm2_checkpoint: Path):
    told = document("inspect", "-m", esm2_checkpoint, "-q", "w4", "--execution", "integer")["execution"]
    reasons = {part["path"]: part["what"] for part in told["parts"]}
    assert reasons["layers.0.attn.q_proj"] == "layers.0.attn.q_proj.input is in float"
    assert told["execution"] == "simulated"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--execution", "fast"), "execution is simulate or integer, not 'fast'"),
        (("-q", "w8a8-int8", "--backend", "cuda"), "'cuda' is none of auto, reference, cpu, triton"),
        (("-q", "w8", "--backend", "cpu"), "w8 is simulated in float; set execution"),
        (("--execution", "integer"), "fp32 leaves everything in float"),
    ],
)
def test_what_cannot_run_is_refused_before_the_work(
    options: tuple[str, ...], message: str, esmfold_checkpoint: Path, fasta: Path, tmp_path: Path
):
    refused = run("fold", "-i", fasta, "-o", tmp_path / "out", "-m", esmfold_checkpoint, *options)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not (tmp_path / "out").exists()


def test_evaluate_refuses_a_backend_that_nothing_would_use(esmfold_checkpoint: Path):
    refused = run("evaluate", "-m", esmfold_checkpoint, "-q", "w8", "--backend", "reference", "--limit", 1)
    assert refused.exit_code == 2
    assert "nothing is to run on them" in refused.stderr


def test_recipes_show_which_claim_integers():
    rows = {row["recipe"]: row for row in document("recipes")}
    assert list(rows) == available_recipes()
    assert {name for name, row in rows.items() if row["integer"]} == {
        name for name in rows if integer_claim(load_recipe(name)).claimed
    }
    assert (rows["w8a8-int8"]["execution"], rows["w8a8-int8"]["integer"]) == ("integer", True)
    assert (rows["w8"]["execution"], rows["w8"]["integer"]) == ("simulate", False)
    assert rows["w8"]["why_not_integer"].endswith("input is in float")
