"""`protquant-esm-fold` takes the flags of fair-esm's `esm-fold`, and gives its files and its lines."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from esm.data import read_fasta
from torch import hub

from protquant.cli.esm_fold import main, model_in
from protquant.errors import ProtquantError

TEXT = ">sp|P1|ONE first, of two\nMKTAYIAKQR\n>two\nGAVLIDE\n"
TABLES = {"manifest.jsonl", "predictions.csv"}
# What programs take apart: the time, the header, length, pLDDT, pTM, seconds, and how far it came.
LINE = re.compile(
    r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d \| INFO \| root \| Predicted structure for (.+) with length (\d+),"
    r" pLDDT (\d+\.\d), pTM (\d\.\d{3}) in \d+\.\ds( \(amortized, batch size \d+\))?\. (\d+) / (\d+) completed\."
)
Command = Callable[..., int]


@pytest.fixture
def esm_fold(esmfold_checkpoint: Path, tmp_path: Path) -> Command:
    def run(*flags: str, text: str = TEXT) -> int:
        (tmp_path / "in.fasta").write_text(text)
        files = ["-i", str(tmp_path / "in.fasta"), "-o", str(tmp_path / "out")]
        return main([*files, "-m", str(esmfold_checkpoint), "--num-recycles", "0", *flags])

    return run


def test_all_flags_are_taken_and_files_are_named_by_the_headers_that_fair_esm_reads(esm_fold, tmp_path: Path, capsys):
    assert esm_fold("--max-tokens-per-batch", "512", "--chunk-size", "64", "--cpu-only", "--cpu-offload") == 0
    headers = [header for header, _ in read_fasta(tmp_path / "in.fasta")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{header}.pdb" for header in headers} | TABLES
    shown = capsys.readouterr()
    assert "--cpu-offload has no effect" in shown.err
    assert shown.out.count("(amortized, batch size 2)") == 2


def test_a_header_with_a_slash_stays_in_the_folder_and_is_told(esm_fold: Command, tmp_path: Path, capsys):
    assert esm_fold(text=">../x/y z\nMKTAYIAKQR\n>../x/y z\nGAVLIDE\n") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} - TABLES == {".._x_y z.pdb", ".._x_y z_2.pdb"}
    assert {path.name for path in tmp_path.iterdir()} == {"in.fasta", "out"}
    assert "'../x/y z': its file is '.._x_y z_2.pdb'" in capsys.readouterr().err


def test_predictions_are_told_in_the_lines_of_esm_fold_and_those_of_before_in_others(esm_fold: Command, capsys):
    assert esm_fold("--max-tokens-per-batch", "0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[-1].split(" from ")[0] for line in lines[:4]] == [
        "Reading sequences",
        "Loaded 2 sequences",
        "Loading model",
        "Starting Predictions",
    ]
    told = [LINE.fullmatch(line) for line in lines[4:]]
    assert all(told)
    assert [(line[1], line[2], line[5], line[6], line[7]) for line in told if line] == [
        ("two", "7", None, "1", "2"),
        ("sp|P1|ONE first, of two", "10", None, "2", "2"),
    ]
    assert esm_fold("--max-tokens-per-batch", "0") == 0
    again = capsys.readouterr().out
    assert "Predicted structure" not in again
    assert again.count("was predicted in an earlier run, pLDDT ") == 2


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (">a\nMKTAYIAKQR\n>b\nMK-T\n", 1, "'b': gap '-'"),
        (">b\nMK-T\n", 2, "'b': gap '-'"),
        ("", 2, "in.fasta: the file is empty"),
    ],
)
def test_what_cannot_be_folded_is_told_by_message_and_exit_code(esm_fold, capsys, text: str, code: int, message: str):
    assert esm_fold(text=text) == code
    assert message in capsys.readouterr().err


def test_two_names_of_a_model_are_refused(esm_fold: Command, capsys):
    assert esm_fold("--weights", "demo") == 2
    assert "--weights and --model-dir both name a model" in capsys.readouterr().err


def test_the_model_is_looked_for_where_esm_fold_does(tmp_path: Path, monkeypatch, esmfold_checkpoint: Path):
    assert model_in(esmfold_checkpoint) == str(esmfold_checkpoint)
    with pytest.raises(ProtquantError, match=r"--model-dir .*: there is no checkpoints/esmfold_3B_v1.pt in it"):
        model_in(tmp_path)
    monkeypatch.setattr(hub, "_hub_dir", str(tmp_path))
    assert model_in(None) == "esmfold_v1"
    path = tmp_path / "checkpoints" / "esmfold_3B_v1.pt"
    path.parent.mkdir()
    path.touch()
    assert model_in(tmp_path) == model_in(None) == str(path)


def test_the_program_tells_its_flags():
    program = [sys.executable, "-c", "from protquant.start import esm_fold; esm_fold()"]
    told = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True).stdout
    flags = "-i -o -m --fasta --pdb --model-dir --num-recycles --max-tokens-per-batch --chunk-size --cpu-only --cpu-off"
    assert all(flag in told for flag in flags.split())
    assert subprocess.run([*program, "-i", "x"], capture_output=True, check=False).returncode == 2
