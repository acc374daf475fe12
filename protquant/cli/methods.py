"""The command `methods`: every method at every setting, side by side."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from protquant import measuring, predicting
from protquant.cli.app import SOME_FAILED, Json, announce
from protquant.cli.commands import command, command_line
from protquant.cli.tables import print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import atomic_write, prepare_folder
from protquant.options import MethodsOptions, Option

_NONE = "none"
_SILENT = ("cpu_only", "measure", "recipes")
"""Options that do not affect the table; the command in its heading leaves them out."""


@command("methods")
def methods(
    options: MethodsOptions,
    show_list: Annotated[bool, Option("List methods and settings, and measure nothing.", ("--list",))] = False,
    markdown: Annotated[Path | None, Option("Markdown file, .md, for the tables.")] = None,
    plot: Annotated[Path | None, Option("Picture, .png, of the methods side by side.")] = None,
    as_json: Json = False,
) -> None:
    """Compare quantization methods on a language model and a folding model; a repeated run resumes.

    Example: `protquant methods --methods rtn,gptq --settings W4,W3 -o methods.csv --markdown methods.md`
    """
    if show_list:
        _print_grid(options.grid, as_json)
        return
    for path, suffix in ((markdown, ".md"), (plot, ".png")):
        if path is not None and path.suffix.lower() != suffix:
            raise ProtquantError(f"{path}: name a file that ends in {suffix}")
        if path is not None:
            prepare_folder(path.parent)
    models = {"lm": options.lm, "model": options.model}
    announce(f"loading {', '.join(name for name in models.values() if name and name != _NONE)}")
    asked = {name: None if model == _NONE else model for name, model in models.items()}
    table = measuring.compare_methods(**vars(options) | asked)
    if as_json:
        print_json(table.to_dict())
    else:
        for setting, rows in measuring.setting_tables(table).items():
            print_table(rows, list(rows[0]), setting)
        for note in table.notes:
            typer.echo(note)
    if markdown is not None:
        made_by = shlex.join(["protquant", "methods", *command_line(options, always=models, never=_SILENT)])
        atomic_write(markdown, measuring.methods_markdown(table, made_by))
    if plot is not None:
        predicting.save_figure(measuring.method_figure(table), plot)
    for row in table.failures:
        typer.echo("{part}, {method} {setting}: {status}: {error}".format(**row), err=True)
    if table.failures:
        raise typer.Exit(SOME_FAILED)


def _print_grid(source: Path | None, as_json: bool) -> None:
    grid = measuring.load_method_grid(source)
    rows = [
        {"method": method.name, "title": method.title, "settings": ", ".join(method.settings)}
        for method in grid.methods.values()
    ]
    if as_json:
        print_json({"methods": rows, "settings": grid.settings})
    else:
        print_table(rows, ["method", "title", "settings"])
