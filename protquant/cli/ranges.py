"""The command `ranges`: whether ranges of activations grow with the length of proteins."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import files, measuring, predicting
from protquant.cli.app import Json, announce
from protquant.cli.commands import command
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import prepare_folder
from protquant.options import Option, RangesOptions

__all__ = ["ranges"]


@command("ranges")
def ranges(
    options: RangesOptions,
    top: Annotated[int, Option("Number of sites to show; those that grow most come first.", at_least=1)] = 12,
    output: Annotated[Path | None, Option("Table of all sites and bins, .csv or .parquet.", ("-o",))] = None,
    plot: Annotated[Path | None, Option("Picture, .png, of range against length.")] = None,
    as_json: Json = False,
) -> None:
    """Show whether ranges of activations grow with the length of proteins, so that recipes need ranges by length.

    Example: `protquant ranges -m demo --lengths 32,64,128 --plot ranges.png`
    """
    if output is not None:
        check_table(output)
    if plot is not None:
        if plot.suffix != ".png":
            raise ProtquantError(f"{plot}: a picture ends in .png")
        prepare_folder(plot.parent)
    announce(f"loading {options.model}")
    report = measuring.range_by_length(**vars(options))
    growth, summary = report.growth(), report.summary()
    if as_json:
        print_json(
            {
                "model": options.model,
                "sequences": len(report.lengths),
                "cropped": report.cropped,
                "empty_bins": [str(each) for each in report.empty],
                "summary": summary,
                "growth": growth,
                "ranges": report.rows(),
            }
        )
    else:
        columns = ["site", "growth", "rank_correlation", "overshoot", *map(str, report.bins)]
        title = f"{options.model}: largest magnitude (median over sequences) by residues; growth g: as residues^g"
        print_table(growth[:top], columns, title)
        print_table(summary, ["kind", "sites", "growth", "largest_growth", "overshoot"], "by kind of site")
        what = "crops of the same proteins" if report.cropped else "sequences, of different proteins"
        typer.echo(f"{len(report.lengths)} {what}, of {report.lengths.min()} to {report.lengths.max()} residues.")
        if report.empty:
            empty = ", ".join(map(str, report.empty))
            typer.echo(f"Without sequences: {empty} residues; --calibration takes a FASTA file.")
    if output is not None:
        files.write_table(report.rows(), output)
    if plot is not None:
        predicting.save_figure(measuring.range_figure(report, [row["site"] for row in growth[: min(top, 6)]]), plot)
