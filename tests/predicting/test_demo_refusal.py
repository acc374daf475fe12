"""`fold` and `contacts` with the demo model, on a sequence that it has not memorized and on one that it has."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemmi
import matplotlib.figure
import pytest
from typer.testing import CliRunner

from protquant.cli import app
from protquant.predicting import FoldRun, contacts_fasta, fold_fasta
from protquant.preparing import quantize_checkpoint
from protquant.structures import load_references

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIE"  # its beginning
UNKNOWN = "the demo model has not memorized this sequence"


@pytest.fixture(scope="module")
def known() -> str:
    """The shortest chain that the demo model has memorized."""
    return min((reference.sequence for reference in load_references()), key=len)


@pytest.fixture
def fasta(known: str, tmp_path: Path) -> Path:
    path = tmp_path / "in.fasta"
    path.write_text(f">ubiquitin\n{UBIQUITIN}\n>known\n{known}\n")
    return path


@pytest.fixture
def fold_demo(fasta: Path, tmp_path: Path) -> Callable[..., FoldRun]:
    def run(model: str = "demo", **settings: Any) -> FoldRun:
        return fold_fasta(fasta, tmp_path / "out", model, num_recycles=0, **({"plots": False} | settings))

    return run


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles of the figures that are drawn."""
    given: list[str] = []
    draw = matplotlib.figure.Figure.suptitle
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "suptitle",
        lambda self, text, **style: given.append(text) or draw(self, text, **style),
    )
    return given


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_unknown_record_is_a_failure_and_the_known_one_is_folded(fold_demo, tmp_path: Path, capsys):
    run = fold_demo()
    assert [row["name"] for row in run.rows] == ["known"]
    assert UNKNOWN not in run.rows[0]["warnings"]
    (failure,) = table(tmp_path / "out" / "failures.csv")
    assert (failure["name"], failure["line"]) == ("ubiquitin", "1")
    assert "memorized 50 chains, and this sequence is none of them" in failure["error"]
    assert f"line 1: 'ubiquitin': {failure['error']}" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("ubiquitin*"))


def test_a_quantized_checkpoint_of_the_demo_is_refused_alike(fold_demo, tmp_path: Path):
    quantize_checkpoint("demo", tmp_path / "small", "w8")
    assert [row["name"] for row in fold_demo(str(tmp_path / "small")).rows] == ["known"]


def test_asked_all_the_same_the_warning_stands_in_five_places(fold_demo, tmp_path: Path, capsys, titles):
    run = fold_demo(even_so=True, plots=True)
    assert run.failures == []
    assert f"ubiquitin: WARNING: {UNKNOWN}" in capsys.readouterr().err
    rows = {row["name"]: row["warnings"] for row in table(tmp_path / "out" / "predictions.csv")}
    assert rows["ubiquitin"].startswith(UNKNOWN)
    assert UNKNOWN not in rows["known"]
    assert sum(title.startswith(f"WARNING: {UNKNOWN}") for title in titles) == 1
    remarks = gemmi.read_structure(str(tmp_path / "out" / "ubiquitin.pdb")).raw_remarks
    assert f"REMARK   6 WARNING: {UNKNOWN}" in "\n".join(remarks)
    block = gemmi.cif.read(str(tmp_path / "out" / "ubiquitin.cif")).sole_block()
    assert f"WARNING: {UNKNOWN}" in block.find_value("_struct.pdbx_model_details")
    (details,) = block.find_values("_ma_protocol_step.details")
    assert f"WARNING: {UNKNOWN}" in details


def test_a_repeated_run_repeats_the_warning_and_refuses_what_it_is_not_asked_for(fold_demo, tmp_path: Path, capsys):
    fold_demo(even_so=True)
    capsys.readouterr()
    assert fold_demo(even_so=True).skipped == ["ubiquitin", "known"]
    assert f"ubiquitin: WARNING: {UNKNOWN}" in capsys.readouterr().err
    again = fold_demo()
    assert (again.skipped, [failure["name"] for failure in again.failures]) == (["known"], ["ubiquitin"])
    # What was asked for in an earlier run stays, with its warning.
    rows = {row["name"]: row["warnings"] for row in table(tmp_path / "out" / "predictions.csv")}
    assert rows["ubiquitin"].startswith(UNKNOWN)


def test_contacts_of_the_demo_are_refused_or_warned_of(fasta: Path, tmp_path: Path, capsys, titles):
    document = contacts_fasta(fasta, tmp_path / "out", "demo")
    assert [row["name"] for row in document["targets"]] == ["known"]
    assert "this sequence is none of them" in document["failures"][0]["error"]
    warning = "knows next to nothing of contacts, not even of the chains that ship with it"
    assert warning in capsys.readouterr().err
    assert [warning in title.replace("\n", " ") for title in titles] == [True]
    document = contacts_fasta(fasta, tmp_path / "out", "demo", plots=False, even_so=True)
    assert [row["name"] for row in document["targets"]] == ["ubiquitin", "known"]
    assert all(warning in row["warnings"] for row in table(tmp_path / "out" / "targets.csv"))


@pytest.mark.parametrize("command", ["fold", "contacts"])
def test_the_commands_exit_with_1_and_do_as_told_with_even_so(command: str, fasta: Path, tmp_path: Path):
    words = [command, "-i", str(fasta), "-o", str(tmp_path / "out"), "-m", "demo", "--no-plots"]
    words += ["--num-recycles", "0"] if command == "fold" else []
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "--even-so" in refused.stderr
    answered = CliRunner().invoke(app, [*words, "--even-so"])
    assert answered.exit_code == 0, answered.output
    assert "WARNING" in answered.stderr
    assert "warnings" in answered.stdout
