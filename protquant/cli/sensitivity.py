"""The command that measures the cost of quantizing each part of a model: `sensitivity`."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import choosing, predicting
from protquant.cli.app import Json, announce
from protquant.cli.commands import command
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.options import Drift, Option, SensitivityOptions

__all__ = ["check_picture"]


def check_picture(path: Path | None) -> None:
    """Refuse an unusable picture file before the work begins."""
    if path is not None and path.suffix.lower() != ".png":
        raise ProtquantError(f"{path}: pictures are PNG; name a file that ends in .png")


def _print(found: "choosing.Sensitivity", model: str, drift: str) -> None:
    columns = ["group", "format", "bits", *found.drifts]
    print_table(found.most_sensitive(drift), columns, f"{model}: parts of the largest {drift} with the fewest bits")
    for note in found.notes:
        typer.echo(note)


@command("sensitivity")
def sensitivity(
    options: SensitivityOptions,
    drift: Drift = None,
    plot: Annotated[Path | None, Option("Heat map of blocks x parts, .png.")] = None,
    as_json: Json = False,
) -> None:
    """Quantize each part of a model alone, and measure how its predictions change.

    Example: `protquant sensitivity -m demo --by module -o sensitivity.csv --plot sensitivity.png`
    """
    if options.output is not None:
        check_table(options.output)
    check_picture(plot)
    announce(f"loading {options.model}")
    found = choosing.sensitivity(**vars(options))
    if plot is not None:
        predicting.save_figure(choosing.sensitivity_figure(found, drift), plot)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, str(options.model), drift or found.drifts[0])
