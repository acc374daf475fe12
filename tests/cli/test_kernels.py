"""`protquant kernels` compiles in a process of its own, and says what is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from protquant.cli import app

pytest.importorskip("triton")

from protquant.kernels.triton.ahead_of_time import variants

ONLY = "linear_int8 (plain"


@pytest.mark.slow
def test_the_table_has_a_row_for_every_variant_that_is_asked_for(tmp_path: Path):
    program = "from protquant.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "kernels", "--check", "gfx942", "--only", ONLY, "--json"],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    rows = json.loads(done.stdout)
    chosen = [variant for variant in variants("gfx942") if variant.name.startswith(ONLY)]
    assert len(chosen) >= 3
    assert len(rows) == len({row["name"] for row in rows}) == len(chosen)
    assert {row["target"] for row in rows} == {"gfx942"}
    assert all(row["problem"] is None and row["registers"] > 0 for row in rows)


def test_an_unknown_architecture_is_named():
    result = CliRunner().invoke(app, ["kernels", "--check", "sm_70"])
    assert result.exit_code == 2
    assert "--check sm_70: no such architecture here; choose of sm_80, sm_90, sm_100, gfx942, all" in result.output


def test_an_interpreter_that_is_switched_on_is_named():
    result = CliRunner().invoke(app, ["kernels", "--check", "gfx942"])  # conftest.py has switched it on
    assert result.exit_code == 2
    assert "TRITON_INTERPRET is set" in result.output


def test_tables_are_asked_for_one_at_a_time():
    result = CliRunner().invoke(app, ["kernels", "--tune", "--roofline"])
    assert result.exit_code == 2
    assert "--check, --roofline and --tune are three tables; ask for one at a time" in result.output


def test_a_length_without_tuning_is_an_error():
    result = CliRunner().invoke(app, ["kernels", "--length", "64"])
    assert result.exit_code == 2
    assert "--length is that of --tune, which was not asked for" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tiles_cannot_be_tuned_without_a_gpu():
    result = CliRunner().invoke(app, ["kernels", "--tune"])
    assert result.exit_code == 2
    assert "--tune times kernels on a GPU, and torch sees none here" in result.output


def test_without_triton_the_command_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("protquant.kernels.triton")  # another module takes its place in the package as well
    for name in [name for name in sys.modules if name.startswith("protquant.kernels.triton")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    result = CliRunner().invoke(app, ["kernels"])
    assert result.exit_code == 2
    assert "pip install triton" in result.output
