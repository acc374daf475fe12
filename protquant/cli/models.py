"""Commands on models and recipes: `import`, `quantize`, `inspect` and `recipes`."""

from typing import TYPE_CHECKING, Annotated

import typer

from protquant import checkpoints, measuring, preparing, quant
from protquant.cli.app import Json, announce
from protquant.cli.commands import command
from protquant.cli.tables import print_json, print_table
from protquant.options import ImportOptions, InspectOptions, Option, QuantizeOptions

if TYPE_CHECKING:
    from protquant.quant import Report

_Schema = Annotated[bool, Option("Print the JSON schema of recipes, with which editors complete and check them.")]
_Sites = Annotated[bool, Option("List every site, not only a row for each kind.")]


@command("import")
def import_command(options: ImportOptions, as_json: Json = False) -> None:
    """Convert a checkpoint to protquant's own layout (safetensors, no pickle), checked key by key.

    Example: `protquant import esmfold_3B_v1.pt esmfold/`, then `protquant fold -m esmfold/ ...`
    """
    announce(f"reading {options.source}")
    folder = checkpoints.import_checkpoint(**vars(options))
    if as_json:
        print_json({"source": options.source, "output": str(folder)})
    else:
        typer.echo(f"{options.source} -> {folder}")


@command("quantize", model="demo")
def quantize(options: QuantizeOptions, sites: _Sites = False, as_json: Json = False) -> None:
    """Quantize a model and save it as a checkpoint of packed codes and scales, which loads without calibration.

    Example: `protquant quantize -m esmfold_v1 --quant w8a8-int8 -o small/`, then `protquant fold -m small/ ...`

    Only one block of the model at a time is in memory in float: ESMFold takes 6 GiB, not 20. An interrupted run leaves
    `small.partial/`, from which the same command resumes. Recipes that calibrate take minutes; others, such as `w8`,
    take the time to read and round the weights.
    """
    announce(f"opening {options.model}")
    report, document = preparing.quantize_checkpoint(**vars(options))
    if as_json:
        print_json(document)
        return
    _print_report(report, f"{options.model}, {options.quant}", sites)
    typer.echo(str(report))
    typer.echo(f"{options.model} -> {options.output}: {document['bytes_on_disk'] / 1e6:.2f} MB on disk")


@command("inspect")
def inspect(options: InspectOptions, sites: _Sites = False, as_json: Json = False) -> None:
    """Show what a recipe does to a model: sites, formats, effective bits, memory.

    Example: `protquant inspect -m demo --quant w8a8-pwlq --sites`

    With `--execution integer` it also shows the execution of every part, and why a part does not run on integers.
    """
    announce(f"loading {options.model} for the recipe {options.quant}")
    report, document = measuring.inspect_model(**vars(options))
    if as_json:
        print_json(document)
        return
    _print_report(report, f"{options.model}, {report.recipe.name}", sites)
    typer.echo(str(report))
    for length, total in document["memory"].items():
        typer.echo(f"folding {length} residues: about {total / 2**30:.2f} GiB at the peak")
    if document["execution"]["parts"]:
        print_table(document["execution"]["parts"], ["path", "runs", "what"], "execution")
        typer.echo(document["execution"]["summary"])


@command("recipes")
def recipes(schema: _Schema = False, as_json: Json = False) -> None:
    """List the recipes that ship with protquant.

    Example: `protquant recipes`

    Column `integer`: whether a kernel multiplies the codes of every linear layer that the recipe quantizes. Column
    `runs as`: the execution of the model, unless `--execution` sets another one.
    """
    if schema:
        print_json(quant.recipe_schema())
        return
    rows = measuring.list_recipes()
    if as_json:
        print_json(rows)
    else:
        shown = [
            row | {"runs as": row["execution"], "integer": "yes" if row["integer"] else f"no: {row['why_not_integer']}"}
            for row in rows
        ]
        print_table(shown, ["recipe", "description", "runs as", "integer"])


def _print_report(report: "Report", title: str, sites: bool) -> None:
    """Print the median signal to noise ratio of each kind and format, and of each site if requested."""
    frame = report.to_frame()
    if sites:
        columns = ["site", "format", "reason", "effective_bits", "snr_db", "clipped"]
        print_table(frame[columns].to_dict("records"), columns, title)
    grouped = frame.groupby(["kind", "format"], sort=False).agg(sites=("site", "size"), snr_db=("snr_db", "median"))
    print_table(grouped.reset_index().to_dict("records"), ["kind", "format", "sites", "snr_db"], "median SNR by kind")
