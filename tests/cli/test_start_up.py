"""Commands that compute nothing import nothing heavy: seconds of torch are not paid for a page of help."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command

from protquant import cli

STRUCTURE = Path(__file__).parents[2] / "structures" / "data" / "ts50" / "1ahsA.pdb.gz"

# Import what `run` is given, one after the other, in one process; print what is heavy and imported after each.
PROGRAM = """
import json, sys
from typer.testing import CliRunner
from protquant import cli
heavy = {"torch", "transformers", "matplotlib", "scipy.optimize", "scipy.stats", "scipy.special", "pandas", "biotite"}
seen = {}
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert result.output
    seen[" ".join(arguments)] = sorted(heavy & set(sys.modules))
print(json.dumps(seen))
"""


def imported_after(*commands: list[str]) -> dict[str, list[str]]:
    command = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def command_paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from command_paths(each, (*path, name))


def test_no_page_of_help_imports_anything_heavy():
    pages = [[*path, "--help"] for path in command_paths(get_command(cli.app))]
    assert ["bench", "trunk", "--help"] in pages
    assert {page: heavy for page, heavy in imported_after(*pages).items() if heavy} == {}


def test_lists_of_recipes_and_formats_import_nothing_heavy():
    commands = [["recipes"], ["recipes", "--json"], ["formats"], ["formats", "--json"]]
    assert set(map(tuple, imported_after(*commands).values())) == {()}


def test_scores_are_computed_with_biotite_alone():
    ((heavy),) = imported_after(["score", str(STRUCTURE), str(STRUCTURE)]).values()
    assert set(heavy) <= {"biotite", "matplotlib"}  # biotite itself imports colors and shapes of matplotlib


@pytest.mark.parametrize("command", ["fold", "contacts"])
def test_a_command_says_what_it_loads_before_it_imports_torch(command: str, tmp_path: Path):
    # A torch that cannot be imported takes the place of the one that is slow to.
    (tmp_path / "torch.py").write_text("raise ImportError('stopped at torch')\n")
    done = subprocess.run(
        [sys.executable, "-m", "protquant", command, "-i", "in.fasta", "-o", "out", "-m", "esmfold_v1"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "stopped at torch" in done.stderr
    assert done.stderr.startswith("protquant: loading esmfold_v1 for the recipe fp32\n")
    assert done.stdout == ""
