"""The commands on sensitivity, automatic precision and the cache."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from protquant import cli
from protquant.quant import load_recipe


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def one_protein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sequences") / "one.fasta"
    path.write_text(">a\nGIVEQCCTSICS\n")
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_json(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_sensitivity_prints_a_document_and_writes_a_table_and_a_picture(esm2_checkpoint, one_protein, tmp_path: Path):
    common = ("sensitivity", "-m", esm2_checkpoint, "--by", "block", "--sequences", one_protein)
    table, picture = tmp_path / "new" / "table.csv", tmp_path / "map.png"
    widths = ("--weight-bits", "4,3", "--activation-bits", "")
    document = run_json(*common, *widths, "-o", table, "--plot", picture)
    assert len(document["rows"]) == len(pd.read_csv(table)) == 4
    assert document["drifts"] == ["contact_drift", "logit_kl"]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    people = run(*common, *widths, "-o", table, "--drift", "logit_kl")
    assert "logit_kl with the fewest bits" in people.stdout
    assert "layers.1 weights" in people.stdout


def test_auto_writes_a_recipe_that_other_commands_take(esm2_checkpoint, one_protein, calibration_file, tmp_path: Path):
    recipe, picture = tmp_path / "mine.yaml", tmp_path / "frontier.png"
    document = run_json(
        *("auto", "-m", esm2_checkpoint, "--target-bits", 6, "--by", "block", "--weight-bits", "3,8"),
        *("--granularity", "channel", "--frontier", "", "--sequences", one_protein, "--check", calibration_file),
        *("-o", recipe, "--plot", picture, "--compare", "w8"),
    )
    assert load_recipe(recipe).to_dict() == document["recipe"]
    chosen = next(row for row in document["frontier"] if row["recipe"] == "mine")
    assert chosen["weight_bits"] <= 6
    assert picture.exists()
    report = run_json("inspect", "-m", esm2_checkpoint, "--quant", recipe)
    assert report["weight_bits"] == pytest.approx(chosen["weight_bits"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sensitivity", "--weight-bits", "8,x"), "--weight-bits '8,x': give numbers with commas"),
        (("sensitivity", "--plot", "map.pdf"), "map.pdf: pictures are PNG"),
        (("sensitivity", "-o", "table.txt"), "table.txt: a table ends in"),
        (("auto", "--target-bits", 5, "-o", "mine.txt"), "mine.txt: a recipe ends in .yaml"),
        (("auto", "-o", "mine.yaml"), "one of the two"),
        (("auto", "--target-bits", 1, "-o", "mine.yaml"), "a mean of 1 bits cannot be reached"),
    ],
)
def test_what_cannot_be_used_is_refused(
    esm2_checkpoint, arguments, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, "-m", esm2_checkpoint)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_cache_can_be_seen_and_deleted(
    esm2_checkpoint, calibration_file, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run_json("cache")["entries"] == 0
    run("inspect", "-m", esm2_checkpoint, "--quant", "w8a8-uniform", "--calibration", calibration_file)
    document = run_json("cache")
    assert document["entries"] == 1
    assert document["bytes"] > 0
    assert Path(document["folder"]).parent == cache_folder
    assert "statistics of 1 calibrations" in run("cache").stdout
    assert run_json("cache", "--clear")["freed"] == document["bytes"]
    assert run_json("cache")["entries"] == 0
    monkeypatch.setenv("PROTQUANT_CACHE", "off")
    assert "nothing is kept" in run("cache").stdout
