"""The command that chooses formats automatically: `auto`."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import choosing, predicting
from protquant.cli.app import Json, announce
from protquant.cli.commands import command
from protquant.cli.sensitivity import check_picture
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import prepare_folder
from protquant.options import AutoOptions, Option


@command("auto", output=Path("auto.yaml"))
def auto(
    options: AutoOptions,
    plot: Annotated[Path | None, Option("Picture, .png, of the frontier.")] = None,
    as_json: Json = False,
) -> None:
    """Choose a format for every weight, write the recipe, and compare it with recipes of one width.

    Example: `protquant auto -m esm2_t6_8M --target-bits 5 -o mine.yaml`, then `protquant evaluate -q mine.yaml ...`
    """
    output = options.output
    assert output is not None
    if options.table is not None:
        check_table(options.table)
    check_picture(plot)
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise ProtquantError(f"{output}: a recipe ends in .yaml")
    prepare_folder(output.parent)
    announce(f"loading {options.model}")
    found = choosing.auto(**vars(options))
    if plot is not None:
        predicting.save_figure(choosing.frontier_figure(found), plot)
    if as_json:
        print_json({"output": str(output), **found.to_dict()})
        return
    columns = ["recipe", "kind", "weight_bits", "activation_bits", "predicted", *found.sensitivity.drifts]
    print_table(found.rows, columns, f"{options.model}: drift from the float model")
    for note in found.notes:
        typer.echo(note)
    typer.echo(f"recipe: {output}")
