"""`protquant ranges` prints, writes and draws how ranges go with length."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from protquant import cli

BINS = "0-12,12-40,40-80"


@pytest.fixture
def arguments(esm2_checkpoint: Path, calibration_file: Path) -> list[str]:
    return ["ranges", "-m", str(esm2_checkpoint), "--calibration", str(calibration_file), "--bins", BINS]


def test_the_report_is_a_table_a_file_and_a_picture(arguments: list[str], tmp_path: Path):
    table, picture = tmp_path / "new" / "ranges.csv", tmp_path / "ranges.png"
    result = CliRunner().invoke(
        cli.app, [*arguments, "--lengths", "10,20", "--top", "3", "-o", str(table), "--plot", str(picture)]
    )
    assert result.exit_code == 0, result.output
    assert "crops of the same proteins, of 10 to 20 residues" in result.stdout
    assert "Without sequences: 40-80 residues" in result.stdout
    assert set(pd.read_csv(table)["lengths"]) == {"0-12", "12-40"}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_has_every_site(arguments: list[str]):
    result = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["sequences"] == 2
    assert not document["cropped"]
    assert {row["site"] for row in document["growth"]} == {row["site"] for row in document["ranges"]}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--lengths", "short"], "numbers of residues"),
        (["--bins", "9-3"], "no length is in"),
        (["--plot", "ranges.pdf"], "ends in .png"),
        (["--lengths", "500"], "shorter crops"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], option: list[str], message: str):
    result = CliRunner().invoke(cli.app, [*arguments, *option])
    assert result.exit_code == 2
    assert message in result.stderr
