"""The command `formats`."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import measuring
from protquant.cli.app import JSON, app, speaks_to_people
from protquant.cli.tables import print_json, print_table

_COLUMNS = ["label", "bits", "levels", "weight_bits", "activation_bits", "SNR normal (dB)", "SNR heavy tail (dB)"]


@app.command(name="formats")
@speaks_to_people
def formats_command(
    context: typer.Context,
    plot: Annotated[Path | None, typer.Option(help="Draw the levels of each format into this .png file.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure again instead of printing what was measured for the release.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """List the number formats: bits, bits with scales and outliers, levels, and what they lose.

    Example: `protquant formats --plot levels.png`

    Bits of weights are those of a matrix of 1,024 x 1,024, of activations those of tokens of 128 channels. The signal
    to noise ratios are those of tokens from a normal and from a one-sided heavy-tailed distribution.

    The figures come with the package. With `--measure`, or with a `--plugin`, which may bring formats of its own, they
    are measured now, which takes up to a minute.
    """
    if plot is not None:
        measuring.draw_levels(plot)
    rows = measuring.list_formats(measure or bool(context.find_root().params["plugin"]))
    if as_json:
        print_json(rows)
    else:
        snr = [(row["snr_gaussian_db"], row["snr_heavy_tailed_db"]) for row in rows]
        print_table(
            [row | dict(zip(_COLUMNS[-2:], each, strict=True)) for row, each in zip(rows, snr, strict=True)], _COLUMNS
        )
