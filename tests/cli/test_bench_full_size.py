"""`protquant bench make-checkpoint` and `bench full-size`: what they print, write and refuse."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protquant.cli import app

SMALL = ("--layers", "1", "--width", "64", "--blocks", "1")


def run(*arguments: str):
    return CliRunner().invoke(app, ["bench", *arguments])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are Linux's")
def test_a_checkpoint_is_made_and_measured(tmp_path: Path):
    made = run("make-checkpoint", str(tmp_path / "random"), *SMALL)
    assert made.exit_code == 0, made.output
    assert "random: file 1 of 1 after" in made.output
    assert "18,273,153 random weights, 0.07 GB in 1 files" in made.output
    measured = run(
        *("full-size", str(tmp_path / "random"), "--work", str(tmp_path / "work"), "--part", "turns"),
        *("--contender", "transformers-float32", "--length", "8", "--rounds", "1", "-o", str(tmp_path / "found.json")),
    )
    assert measured.exit_code == 0, measured.output
    assert "round 1, transformers-float32: done" in measured.output
    assert "8 residues, 0 recycles, by turns" in measured.output
    assert "NOT RUN: quantize w8a8-int8: part quantize was not asked for, and no result stands" in measured.output
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["settings"]["checkpoint"] == "random"
    assert [row["holds"] for row in document["tables"]["claims"]] == ["not measured"] * len(
        document["tables"]["claims"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("make-checkpoint", "new", "--like", "demo"), "--like demo: no released folding model has this name"),
        (("make-checkpoint", "new", "--width", "65"), "--width 65: heads have 64 channels"),
        (("full-size", "none", "--work", "work"), "config.json: cannot be read"),
        (("full-size", "none", "--work", "work", "-q", "w8"), "--quant w8: no recipe of this benchmark"),
        (("full-size", "none", "--work", "work", "--contender", "jax"), "jax: no contender; there are"),
        (("full-size", "none", "--work", "work", "-o", "times.csv"), "name a file that ends in .json"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert list(tmp_path.iterdir()) == []
