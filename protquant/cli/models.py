"""Commands on models and recipes: `import`, `inspect` and `recipes`."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import checkpoints, measuring
from protquant.cli.app import JSON, Backend, CalibrationFile, Execution, Model, Quant, announce, app, speaks_to_people
from protquant.cli.reports import print_report
from protquant.cli.tables import print_json, print_table


@app.command(name="import")
@speaks_to_people
def import_command(
    source: Annotated[str, typer.Argument(help="Hugging Face folder or hub name, fair-esm `.pt`, or released name.")],
    output: Annotated[Path, typer.Argument(help="Folder to make.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the checkpoint that is there.")] = False,
    as_json: JSON = False,
) -> None:
    """Convert a checkpoint to protquant's own layout (safetensors, no pickle), checked key by key.

    Example: `protquant import esmfold_3B_v1.pt esmfold/`, then `protquant fold -m esmfold/ ...`
    """
    announce(f"reading {source}")
    folder = checkpoints.import_checkpoint(source, output, overwrite)
    if as_json:
        print_json({"source": source, "output": str(folder)})
    else:
        typer.echo(f"{source} -> {folder}")


@app.command()
@speaks_to_people
def inspect(
    model: Model = "demo",
    quant: Quant = "fp32",
    execution: Execution = None,
    backend: Backend = "auto",
    calibration: CalibrationFile = None,
    sites: Annotated[bool, typer.Option(help="List every site, not only each kind.")] = False,
    as_json: JSON = False,
) -> None:
    """Show what a recipe does to a model: sites, formats, effective bits, memory.

    Example: `protquant inspect -m demo --quant w8a8-pwlq --sites`

    With `--execution integer` also what every part of the model runs on, and why where that is not integers.
    """
    announce(f"loading {model} for the recipe {quant}")
    report, document = measuring.inspect_model(
        model, quant, execution=execution, backend=backend, calibration=calibration
    )
    if as_json:
        print_json(document)
        return
    print_report(report, f"{model}, {report.recipe.name}", sites)
    typer.echo(str(report))
    for length, total in document["memory"].items():
        typer.echo(f"folding {length} residues: about {total / 2**30:.2f} GiB at the peak")
    if document["execution"]["parts"]:
        print_table(document["execution"]["parts"], ["path", "runs", "what"], "execution")
        typer.echo(document["execution"]["summary"])


@app.command()
@speaks_to_people
def recipes(as_json: JSON = False) -> None:
    """List the recipes that ship with protquant.

    Example: `protquant recipes`

    `integer` says whether a kernel multiplies the codes of every linear layer that the recipe quantizes, and `runs as`
    what a model under it runs as unless `--execution` says otherwise.
    """
    rows = measuring.list_recipes()
    if as_json:
        print_json(rows)
    else:
        shown = [
            row | {"runs as": row["execution"], "integer": "yes" if row["integer"] else f"no: {row['why_not_integer']}"}
            for row in rows
        ]
        print_table(shown, ["recipe", "description", "runs as", "integer"])
