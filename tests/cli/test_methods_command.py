import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from protquant import cli
from protquant.measuring.method_grid import load_method_grid


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, ["methods", *(str(argument) for argument in arguments)])
    assert "Traceback" not in result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_one_command_prints_the_table_and_writes_all_that_it_was_asked_for(
    esmfold_checkpoint, esm2_checkpoint, structures_folder, calibration_file, tmp_path: Path
):
    models = ("--lm", esm2_checkpoint, "-m", esmfold_checkpoint, "--structures", structures_folder, "--limit", 1)
    chosen = ("--methods", "rtn,smoothquant", "--settings", "W8A8,W4", "--calibration", calibration_file)
    output = ("-o", tmp_path / "t.csv", "--markdown", tmp_path / "new" / "t.md", "--plot", tmp_path / "t.png")
    result = run(*models, *chosen, *output, "--write-recipes", tmp_path / "recipes", "--mask-every", 20)
    assert result.exit_code == 0, result.output
    header = next(line for line in result.stdout.splitlines() if "contact drift" in line)
    assert "pseudo-ppl." in header and "TM to float" in header
    assert len(pd.read_csv(tmp_path / "t.csv")) == 2 * (1 + 3)
    page = (tmp_path / "new" / "t.md").read_text()
    assert f"--lm {esm2_checkpoint}" in page and "--mask-every 20" in page and "--limit 1" in page
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / "recipes").glob("*/*.yaml")} == {
        "w8a8-rtn.yaml",
        "w4-rtn.yaml",
        "w8a8-smoothquant.yaml",
    }
    again = run(*models, *chosen, *output[:2], "--mask-every", 20, "--json")
    assert len(json.loads(again.stdout)["rows"]) == 8


def test_methods_are_listed():
    result = run("--list", "--json")
    document = json.loads(result.stdout)
    assert [row["method"] for row in document["methods"]] == list(load_method_grid().methods)
    assert "Hadamard rotation" in run("--list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "rnt", "--lm", "none"], "unknown method 'rnt'"),
        (["--lm", "none", "-m", "none"], "nothing to compare methods on"),
        (["--markdown", "table.txt"], "ends in .md"),
        (["-o", "table.txt"], "ends in .csv"),
        (["--grid", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], message: str, esmfold_checkpoint: Path):
    result = run(*(["-m", esmfold_checkpoint] if "-m" not in arguments else []), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_method_of_another_day_is_told_loudly(esm2_checkpoint, structures_folder, tmp_path: Path):
    grid = tmp_path / "grid.yaml"
    grid.write_text("settings: {W4: {weight_bits: 4}}\nmethods: [{name: later, steps: [{step: tomorrow}]}]\n")
    result = run("--lm", esm2_checkpoint, "-m", "none", "--structures", structures_folder, "--grid", grid)
    assert result.exit_code == 1
    assert "later W4: not available: not in this version: step 'tomorrow'" in result.stderr
