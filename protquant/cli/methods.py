"""The command `methods`: every method at every setting, side by side."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from protquant import measuring, predicting
from protquant.cli.app import JSON, SOME_FAILED, CalibrationFile, CpuOnly, Structures, announce, app, speaks_to_people
from protquant.cli.tables import print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import atomic_write, prepare_folder
from protquant.running.choices import MASK_EVERY

_NONE = "none"


@app.command(name="methods")
@speaks_to_people
def methods_command(
    lm: Annotated[
        str, typer.Option(help="Language model: a released name, a folder, a `.pt` file; `none` leaves it out.")
    ] = "esm2_t6_8M",
    model: Annotated[
        str, typer.Option("-m", "--model", help="Folding model, as for `fold`; `none` leaves it out.")
    ] = "demo",
    methods: Annotated[str | None, typer.Option(help="Only these, by commas; see --list.  [default: all]")] = None,
    settings: Annotated[str | None, typer.Option(help="Only these, such as W8A8,W4A4.  [default: all]")] = None,
    grid: Annotated[
        Path | None, typer.Option(help="YAML file of methods and settings.  [default: those that ship]")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Only list methods and settings.")] = False,
    structures: Structures = None,
    heldout: Annotated[
        Path | None, typer.Option(help="FASTA whose residues are hidden.  [default: 20 shipped UniProt proteins]")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many structures.")] = None,
    mask_every: Annotated[
        int, typer.Option(help="How far apart residues are that are hidden together; 0: one at a time.")
    ] = MASK_EVERY,
    num_recycles: Annotated[
        int | None, typer.Option(help="Times the output of folding is fed back.  [default: as trained]")
    ] = None,
    calibration: CalibrationFile = None,
    seed: Annotated[int, typer.Option(help="Of what methods that train draw at random.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Table, .csv, to which each cell goes at once; what is in it is kept."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this Markdown file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the methods side by side to this .png file.")] = None,
    write_recipes: Annotated[
        Path | None, typer.Option(help="Write the recipe of every cell to this folder, for --quant.")
    ] = None,
    cpu_only: CpuOnly = False,
    measure: Annotated[bool, typer.Option(help="Measure cells that are not in the table yet.")] = True,
    as_json: JSON = False,
) -> None:
    """Compare quantization methods on a language model and a folding model; run it again to go on.

    Example: `protquant methods --methods rtn,gptq --settings W4,W3 -o methods.csv --markdown methods.md`
    """
    if show_list:
        _print_grid(grid, as_json)
        return
    for path, suffix in ((markdown, ".md"), (plot, ".png")):
        if path is not None and path.suffix.lower() != suffix:
            raise ProtquantError(f"{path}: name a file that ends in {suffix}")
        if path is not None:
            prepare_folder(path.parent)
    used = [name for name in (lm, model) if name != _NONE]
    announce(f"loading {', '.join(used)}")
    table = measuring.compare_methods(
        None if lm == _NONE else lm,
        None if model == _NONE else model,
        methods=_names(methods),
        settings=_names(settings),
        grid=grid,
        structures=structures,
        heldout=heldout,
        limit=limit,
        mask_every=mask_every or None,
        num_recycles=num_recycles,
        calibration=calibration,
        seed=seed,
        cpu_only=cpu_only,
        output=output,
        recipes=write_recipes,
        measure=measure,
    )
    if as_json:
        print_json(table.to_dict())
    else:
        for setting, rows in measuring.setting_tables(table).items():
            print_table(rows, list(rows[0]), setting)
        for note in table.notes:
            typer.echo(note)
    if markdown is not None:
        options = {
            "lm": lm,
            "model": model,
            "methods": methods,
            "settings": settings,
            "grid": grid,
            "structures": structures,
            "heldout": heldout,
            "limit": limit,
            "mask-every": mask_every,
            "num-recycles": num_recycles,
            "calibration": calibration,
            "seed": seed,
            "output": output,
        }
        atomic_write(markdown, measuring.methods_markdown(table, _command(options)))
    if plot is not None:
        predicting.save_figure(measuring.method_figure(table), plot)
    for row in table.failures:
        typer.echo("{part}, {method} {setting}: {status}: {error}".format(**row), err=True)
    if table.failures:
        raise typer.Exit(SOME_FAILED)


def _names(listed: str | None) -> list[str] | None:
    return None if listed is None else [name.strip() for name in listed.split(",") if name.strip()]


def _command(options: dict[str, Any]) -> str:
    """The command line of these options, the defaults left out."""
    defaults = {"mask-every": MASK_EVERY, "seed": 0}
    said = {name: value for name, value in options.items() if value is not None and value != defaults.get(name)}
    words = [word for name, value in said.items() for word in (f"--{name}", str(value))]
    return shlex.join(["protquant", "methods", *words])


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
