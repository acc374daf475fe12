"""The commands: what they print where, and their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file
from transformers import EsmForProteinFolding
from typer.testing import CliRunner, Result

from protquant import cli, measuring
from protquant.cli import tables
from protquant.quant import available_recipes

FASTA = ">a first\nMKTAYIAKQR\n>b\nGAVLIDEGAVLIDE\n"
SCORES = {"tm_score", "gdt_ts", "lddt_ca", "rmsd_ca", "n_aligned", "reference_length"}


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "in.fasta"
    path.write_text(FASTA)
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_json(*arguments: object, exit_code: int = 0) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def assert_refused(result: Result, *messages: str) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    for message in messages:
        assert message in result.stderr


# One JSON document on standard output, everything else on standard error.


def test_fold_prints_one_document_and_its_notes_elsewhere(fasta, esmfold_checkpoint, tmp_path: Path):
    arguments = ("fold", "-i", fasta, "-o", tmp_path / "out", "-m", esmfold_checkpoint, "--no-plots")
    document = run_json(*arguments)
    assert [row["header"] for row in document["predictions"]] == ["a first", "b"]
    assert document["skipped"] == document["failures"] == []
    assert document["settings"]["recipe"]["name"] == "fp32"
    again = run(*arguments, "--json")
    assert json.loads(again.stdout)["skipped"] == ["a", "b"]
    assert "2 of 2 targets are done already" in again.stderr


def test_contacts_prints_one_document(fasta: Path, esm2_checkpoint: Path, tmp_path: Path):
    document = run_json("contacts", "-i", fasta, "-o", tmp_path / "out", "-m", esm2_checkpoint, "--no-plots")
    assert [row["name"] for row in document["targets"]] == ["a", "b"]
    assert Path(document["table"]).is_file()


def test_evaluate_prints_a_record_per_model_and_recipe_and_one_per_target(
    esmfold_checkpoint, structures_folder, tmp_path: Path
):
    table = tmp_path / "new" / "results.v1.csv"
    common = ("evaluate", "-m", esmfold_checkpoint, "--structures", structures_folder, "-q", "w8")
    document = run_json(*common, "-q", "fp32", "-o", table)
    assert document["task"] == "structure"
    assert [(r["recipe"], r["targets"]) for r in document["records"]] == [("fp32", 2), ("w8", 2)]
    assert {"tm_score", "lddt_ca", "plddt", "tm_to_float", "weight_bits", "activation_bits", "weight_bytes"} <= set(
        document["records"][0]
    )
    assert len(document["targets"]) == 4
    assert pd.read_csv(table).recipe.tolist() == ["fp32", "w8"]
    assert pd.read_csv(tmp_path / "new" / "results.v1_targets.csv").target.tolist() == ["one", "two"] * 2


def test_evaluate_limits_the_targets_and_scores_contacts(esm2_checkpoint, structures_folder, tmp_path: Path):
    pytest.importorskip("pyarrow")
    table = tmp_path / "contacts.parquet"
    common = ("evaluate", "--task", "contacts", "-m", esm2_checkpoint, "--structures", structures_folder)
    document = run_json(*common, "-q", "fp32", "--limit", 1, "-o", table)
    assert [target["target"] for target in document["targets"]] == ["one"]
    assert pd.read_parquet(table)["long P@L"].tolist() == [document["records"][0]["long P@L"]]
    assert (tmp_path / "contacts_targets.parquet").is_file()


def test_score_prints_its_numbers(structures_folder: Path):
    scores = run_json("score", structures_folder / "one.pdb", structures_folder / "one.pdb")
    assert set(scores) > SCORES
    assert scores["tm_score"] == pytest.approx(1)
    assert scores["n_aligned"] == scores["reference_length"] == 28


def test_import_makes_a_checkpoint_that_folds(hugging_face_esmfold: EsmForProteinFolding, fasta, tmp_path: Path):
    hugging_face_esmfold.save_pretrained(tmp_path / "foreign")
    document = run_json("import", tmp_path / "foreign", tmp_path / "own")
    assert document == {"source": str(tmp_path / "foreign"), "output": str(tmp_path / "own")}
    folded = run_json("fold", "-i", fasta, "-o", tmp_path / "out", "-m", tmp_path / "own", "--no-plots")
    assert len(folded["predictions"]) == 2


def test_inspect_prints_one_document(esmfold_checkpoint: Path):
    document = run_json("inspect", "-m", esmfold_checkpoint, "--quant", "w8")
    assert document["recipe"]["name"] == "w8"
    assert {"site", "format", "effective_bits"} <= set(document["sites"][0])
    assert set(document["memory"]) == {"128", "256", "512", "1024"}


def test_recipes_prints_one_document():
    assert [row["recipe"] for row in run_json("recipes")] == available_recipes()


# Without --json: tables, whole.


def test_tables_are_for_people(fasta, esmfold_checkpoint, esm2_checkpoint, structures_folder, tmp_path: Path):
    one = structures_folder / "one.pdb"
    shown = {
        "fold": run("fold", "-i", fasta, "-o", tmp_path / "f", "-m", esmfold_checkpoint, "--no-plots"),
        "contacts": run("contacts", "-i", fasta, "-o", tmp_path / "c", "-m", esm2_checkpoint, "--no-plots"),
        "score": run("score", one, one),
        "inspect": run("inspect", "-m", esmfold_checkpoint, "-q", "w8", "--sites"),
        "recipes": run("recipes"),
        "import": run("import", esm2_checkpoint, tmp_path / "copy"),
        "evaluate": run("evaluate", "-m", esmfold_checkpoint, "-q", "w8", "--structures", structures_folder),
    }
    assert {name: result.exit_code for name, result in shown.items()} == dict.fromkeys(shown, 0)
    assert all(heading in shown["fold"].stdout for heading in ("pLDDT", "CA-CA off", "clashes/1000", "warnings"))
    assert "tm_score" in shown["score"].stdout
    assert "trunk.blocks.1.pair_transition.down_proj.weight" in shown["inspect"].stdout
    assert "w8a8-pwlq" in shown["recipes"].stdout
    header = next(line for line in shown["evaluate"].stdout.splitlines() if "TM to float" in line)
    assert len(header) > 80  # never cut at the width assumed of a pipe
    assert "weight MB" in header


# Exit code 2: nothing could be done. 1: some were. The message names file, record and remedy.


def test_a_missing_input_is_named(tmp_path: Path, esmfold_checkpoint: Path):
    result = run("fold", "-i", tmp_path / "missing.fasta", "-o", tmp_path / "out", "-m", esmfold_checkpoint)
    assert_refused(result, "missing.fasta: there is no such file. Check the path.")


@pytest.mark.parametrize(("command", "released"), [("fold", "esmfold_v1"), ("contacts", "esm2_t33_650M")])
def test_without_a_model_the_released_one_is_asked_for(command, released, fasta, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = run(command, "-i", fasta, "-o", tmp_path / "out")
    assert_refused(result, f"{released} is not on this machine", f"`protquant import {released} FOLDER`", "-m demo")


@pytest.mark.parametrize("command", ["fold", "contacts"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("MKT\n", "line 1: sequence text before the first header"),
    ],
)
def test_a_file_without_records_is_refused(command: str, text: str, message: str, tmp_path, esmfold_checkpoint):
    (tmp_path / "in.fasta").write_text(text)
    result = run(command, "-i", tmp_path / "in.fasta", "-o", tmp_path / "out", "-m", esmfold_checkpoint)
    assert_refused(result, f"{tmp_path / 'in.fasta'}", message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["fold", "contacts"])
def test_some_failed_records_exit_with_1_and_only_failed_records_with_2(
    command: str, fasta: Path, esmfold_checkpoint, tmp_path: Path
):
    bad = ">gap\nMK-TAY\n>digit\nMK1\n>stop\nM*K\n>nothing\n"
    common = (command, "-i", fasta, "-o", tmp_path / "out", "-m", esmfold_checkpoint, "--no-plots")
    fasta.write_text(FASTA + bad)
    some = run(*common, "--json")
    assert some.exit_code == 1
    assert [failure["header"] for failure in json.loads(some.stdout)["failures"]] == ["gap", "digit", "stop", "nothing"]
    assert f"{fasta}, line 5: 'gap': gap '-' at position 3" in some.stderr
    fasta.write_text(bad)
    none = run(*common)
    assert none.exit_code == 2
    assert "'nothing': the sequence is empty; add the residues, or remove the record" in none.stderr
    fasta.write_text(FASTA)
    assert run(*common).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "esmfold_v2"], "did you mean esmfold_v1"),
        (["-q", "w8a8"], "no recipe 'w8a8'"),
        (["--dtype", "half"], "choose one of float32, bfloat16, float16"),
        (["--num-recycles", "-1"], "the number of recycles is -1; give 0 or more"),
        (["--chunk-size", "0"], "the chunk size is 0"),
        (["--calibration", "nowhere.fasta"], "nowhere.fasta: there is no such file"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(fasta, esmfold_checkpoint, tmp_path, options, message: str):
    result = run("fold", "-i", fasta, "-o", tmp_path / "out", "-m", esmfold_checkpoint, *options)
    assert_refused(result, message)


@pytest.mark.parametrize("command", ["fold", "contacts"])
def test_an_output_folder_that_cannot_be_written_is_refused(command: str, fasta, esmfold_checkpoint, tmp_path: Path):
    (tmp_path / "out").write_text("a file of mine")
    result = run(command, "-i", fasta, "-o", tmp_path / "out", "-m", esmfold_checkpoint)
    assert_refused(result, f"{tmp_path / 'out'}: the output folder cannot be created", "Name another folder")
    assert (tmp_path / "out").read_text() == "a file of mine"


def test_a_truncated_checkpoint_is_refused_and_earlier_results_stay(fasta, esmfold_checkpoint, tmp_path: Path):
    model = tmp_path / "model"
    run("import", esmfold_checkpoint, model)
    common = ("fold", "-i", fasta, "-o", tmp_path / "out", "-m", model, "--no-plots")
    assert run(*common).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(run(*common), f"{weights}: differs from what was saved", "Copy or import the checkpoint again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_checkpoint_with_a_missing_key_is_refused_with_its_name(
    hugging_face_esmfold: EsmForProteinFolding, fasta, tmp_path: Path
):
    hugging_face_esmfold.save_pretrained(tmp_path / "model")
    (weights,) = (tmp_path / "model").glob("*.safetensors")
    state = load_file(weights)
    lost = "trunk.blocks.1.tri_att_end.mha.linear_g.bias"
    del state[lost]
    save_file(state, weights, metadata={"format": "pt"})
    result = run("fold", "-i", fasta, "-o", tmp_path / "out", "-m", tmp_path / "model")
    assert_refused(result, str(tmp_path / "model"), lost)


def test_import_does_not_overwrite_unasked(esm2_checkpoint: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert_refused(run("import", esm2_checkpoint, tmp_path / "mine"), "already exists and is not empty")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert_refused(
        run("import", esm2_checkpoint, tmp_path / "mine", "--overwrite"), "not part of a checkpoint (notes.txt)"
    )
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    (tmp_path / "mine" / "notes.txt").unlink()
    assert run("import", esm2_checkpoint, tmp_path / "mine").exit_code == 0
    assert run("import", esm2_checkpoint, tmp_path / "mine", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("table.txt", "ends in .csv, .csv.gz or .parquet"),
        ("table.parquet", "Parquet needs pyarrow"),
        ("taken.csv", "this is a folder"),
    ],
)
def test_evaluate_refuses_a_table_that_it_could_not_write_before_it_starts(
    output: str, message: str, esmfold_checkpoint, structures_folder, tmp_path: Path, monkeypatch
):
    (tmp_path / "taken.csv").mkdir()
    monkeypatch.setattr(tables, "find_spec", lambda _name: None)
    monkeypatch.setattr(measuring, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    assert_refused(run("evaluate", "-m", esmfold_checkpoint, "-o", tmp_path / output), output, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--task", "fold"], "unknown task 'fold'; choose structure, contacts or language"),
        (["evaluate", "--limit", "0", "-q", "fp32"], "give a number of structures of at least 1"),
        (["evaluate", "--structures", "nowhere", "-q", "fp32"], "nowhere: no such folder"),
        (["evaluate", "--num-recycles", "-1"], "the number of recycles is -1"),
        (["score", "nowhere.pdb", "nowhere.cif"], "nowhere.pdb"),
        (["inspect", "-m", "nowhere"], "nowhere: neither a known model"),
        (["inspect", "-q", "nothing.yaml"], "nothing.yaml does not exist"),
        (["import", "nowhere", "out"], "nowhere: neither a known model"),
    ],
)
def test_other_commands_refuse_in_the_same_way(arguments: list[str], message: str, esmfold_checkpoint: Path):
    if "-m" not in arguments and arguments[0] in ("evaluate", "inspect"):
        arguments = [*arguments, "-m", str(esmfold_checkpoint)]
    assert_refused(run(*arguments), message)


def test_the_program_exits_with_2(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["protquant", "score", str(tmp_path / "no.pdb"), str(tmp_path / "no.pdb")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "protquant: " in capsys.readouterr().err


@pytest.mark.slow
def test_the_program_exits_with_1_and_keeps_standard_output_clean(fasta, esmfold_checkpoint, tmp_path: Path):
    fasta.write_text(FASTA + ">gap\nM-K\n")
    arguments = ["fold", "-i", fasta, "-o", tmp_path / "out", "-m", esmfold_checkpoint, "--no-plots", "--json"]
    command = [sys.executable, "-m", "protquant", *map(str, arguments)]
    # From elsewhere, as a user would.
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"COLUMNS": "80"}
    )
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)["predictions"]) == 2
    assert "line 5: 'gap'" in done.stderr
    assert "Traceback" not in done.stderr
