"""The command `protquant formats`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protquant import cli
from protquant.quant import FORMATS


@pytest.mark.slow
def test_formats_are_printed_as_one_document_and_drawn(tmp_path: Path):
    result = CliRunner().invoke(cli.app, ["formats", "--json", "--plot", str(tmp_path / "levels.png")])
    assert result.exit_code == 0, result.output
    assert {row["format"] for row in json.loads(result.stdout)} == set(FORMATS)
    assert (tmp_path / "levels.png").exists()


def test_formats_are_a_table_for_people():
    result = CliRunner().invoke(cli.app, ["formats"])
    assert result.exit_code == 0
    assert "dint 4 per channel" in result.stdout


def test_a_picture_that_cannot_be_drawn_is_refused(tmp_path: Path):
    result = CliRunner().invoke(cli.app, ["formats", "--plot", str(tmp_path / "levels.txt")])
    assert result.exit_code == 2
    assert ".png" in result.stderr
