"""A function, its docstring and its command have what an option group declares."""

import inspect
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from protquant.cli.commands import command, command_line
from protquant.options import Option, takes


@dataclass(frozen=True, kw_only=True)
class Shared:
    count: Annotated[int | None, Option("How many there are.", none="all", at_least=1)] = None


@dataclass(frozen=True)
class Options(Shared):
    file: Annotated[Path, Option("A file.", ("-f",))]
    name: Annotated[str, Option("Its name.")] = "x"
    _: KW_ONLY
    kind: Annotated[Literal["a", "b"], Option("Its kind.")] = "a"
    widths: Annotated[tuple[int, ...], Option("Widths.", listed="numbers with commas")] = (8, 4)
    only: Annotated[tuple[str, ...], Option("One of several.")] = ()
    hidden: Annotated[float, Option("For programs.", python_only=True)] = 0.5


@takes(Options)
def described(options: Options) -> str:
    """Describe a file.

    Raises
    ------
    OSError
        Never.
    """
    return repr(options)


def shown(*arguments: str) -> tuple[int, str]:
    program = typer.Typer(rich_markup_mode="markdown")

    @command("show", program)
    def show(options: Options, more: Annotated[bool, Option("Show more.")] = False) -> None:
        """Show."""
        typer.echo(f"{options} {more}")

    result = CliRunner().invoke(program, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_a_function_is_called_with_the_fields_of_its_group():
    assert described("in.txt", "y", count=2) == repr(Options(Path("in.txt"), "y", count=2))
    assert list(inspect.signature(described).parameters)[:2] == ["file", "name"]
    with pytest.raises(TypeError, match="missing a required argument: 'file'"):
        described(count=2)  # type: ignore[call-arg]


def test_its_docstring_has_a_section_on_them():
    assert described.__doc__ is not None
    head, parameters = described.__doc__.split("Parameters\n----------\n")
    assert head == "Describe a file.\n\n"
    parameters, raises = parameters.split("\nRaises\n------\n")
    assert "count : int, optional\n    How many there are. By default all.\n" in parameters
    assert "kind : {'a', 'b'}, default 'a'\n    Its kind.\n" in parameters
    assert "hidden : float" in parameters
    assert raises == "OSError\n    Never."


def test_a_command_has_flat_options_of_them():
    code, page = shown("--help")
    assert code == 0
    for text in ("--file", "-f", "How many there are.", "[default: all]", "[a|b]", "May be repeated.", "--no-more"):
        assert text in page
    assert "--hidden" not in page
    given = Options(Path("in"), count=3, kind="b", widths=(2,), only=("p", "q"))
    words = ["-f", "in", "--count", "3", "--kind", "b", "--widths", "2", "--only", "p", "--only", "q", "--more"]
    assert shown(*words) == (0, f"{given} True\n")
    assert shown("-f", "in") == (0, f"{Options(Path('in'))} False\n")


def test_numbers_that_cannot_be_read_are_refused():
    code, page = shown("-f", "in", "--widths", "8,x")
    assert code == 2
    assert "--widths '8,x': give numbers with commas" in page
    assert shown("-f", "in", "--count", "0")[0] == 2


def test_a_command_line_leaves_defaults_out():
    options = Options(Path("in"), widths=(2, 3))
    assert command_line(options, always=["name"]) == ["--file", "in", "--name", "x", "--widths", "2,3"]
