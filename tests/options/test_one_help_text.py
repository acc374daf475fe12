"""The help of an option stands in one place, and is shown by the command, the function and the sweep."""

import re
from pathlib import Path

import typer
from hydra import compose, initialize_config_module
from typer.testing import CliRunner

import protquant
from protquant import cli
from protquant.cli.commands import command
from protquant.cli.folding import fold
from protquant.options import EvaluateOptions, FoldOptions, parameters, takes
from protquant.predicting import fold_fasta

SOURCES = Path(protquant.__file__).parent


def words(text: str) -> str:
    """Without borders of boxes, breaks of lines and marks of code."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text.replace("`", ""))


def test_the_page_and_the_docstring_have_the_declared_texts():
    page = words(CliRunner().invoke(cli.app, ["fold", "--help"], env={"COLUMNS": "300"}).output)
    docstring = words(fold_fasta.__doc__ or "")
    for each in parameters(FoldOptions):
        text = words(each.option.help)
        assert text in docstring
        assert text in page or each.option.python_only


def test_a_text_that_is_changed_in_one_place_changes_everywhere():
    (option,) = (each.option for each in parameters(EvaluateOptions) if each.name == "num_recycles")
    text = option.help
    assert [path.name for path in SOURCES.rglob("*.py") if text in path.read_text(encoding="utf-8")] == ["groups.py"]
    program = typer.Typer()
    try:
        object.__setattr__(option, "help", "CHANGED TEXT.")
        command("fold", program)(fold.__wrapped__)
        page = CliRunner().invoke(program, ["--help"], env={"COLUMNS": "300"}).output
        docstring = takes(FoldOptions)(fold_fasta.__wrapped__).__doc__
        with initialize_config_module("protquant.configs", version_base="1.3"):
            sweep = compose("sweep", return_hydra_config=True).hydra.help.footer
    finally:
        object.__setattr__(option, "help", text)
    assert [shown.count("CHANGED TEXT.") for shown in (page, docstring, sweep)] == [1, 1, 1]
