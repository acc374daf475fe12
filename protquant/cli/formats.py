"""The command `formats`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from protquant import measuring
from protquant.cli.app import Json
from protquant.cli.commands import command
from protquant.cli.tables import print_json, print_table
from protquant.options import FormatsOptions, Option

_COLUMNS = ["label", "bits", "levels", "weight_bits", "activation_bits", "SNR normal (dB)", "SNR heavy tail (dB)"]


@command("formats")
def formats(
    context: typer.Context,
    options: FormatsOptions,
    plot: Annotated[Path | None, Option("Picture, .png, of the levels of each format.")] = None,
    as_json: Json = False,
) -> None:
    """List the number formats: bits, bits with scales and outliers, levels, and signal to noise ratios.

    Example: `protquant formats --plot levels.png`

    Bits of weights are for a matrix of 1,024 x 1,024, bits of activations for tokens of 128 channels. Signal to noise
    ratios are for tokens from a normal and from a one-sided heavy-tailed distribution.

    The figures come with the package. With `--measure`, or with a `--plugin`, which may add formats, they are measured
    now, which takes up to a minute.
    """
    if plot is not None:
        measuring.draw_levels(plot)
    if context.find_root().params["plugin"]:
        options = replace(options, measure=True)
    rows = measuring.list_formats(**vars(options))
    if as_json:
        print_json(rows)
    else:
        snr = [(row["snr_gaussian_db"], row["snr_heavy_tailed_db"]) for row in rows]
        print_table(
            [row | dict(zip(_COLUMNS[-2:], each, strict=True)) for row, each in zip(rows, snr, strict=True)], _COLUMNS
        )
