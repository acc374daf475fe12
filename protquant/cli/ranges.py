"""The command `ranges`: whether activations reach further in longer proteins."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import files, measuring, predicting
from protquant.cli.app import JSON, CalibrationFile, CpuOnly, Model, announce, app, speaks_to_people
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import prepare_folder
from protquant.quant.lengths import DEFAULT_BINS, parse_lengths

__all__ = ["ranges"]

_BINS = ",".join(map(str, DEFAULT_BINS))


@app.command()
@speaks_to_people
def ranges(
    model: Model = "demo",
    calibration: CalibrationFile = None,
    lengths: Annotated[
        str | None,
        typer.Option(help="Crop every sequence to these lengths, such as 64,128,256: the same proteins at each."),
    ] = None,
    bins: Annotated[str, typer.Option(help="Lengths to compare.")] = _BINS,
    top: Annotated[int, typer.Option(min=1, help="How many of the sites that grow most to show.")] = 12,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table of all sites and bins, .csv or .parquet.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture, .png, of range against length.")] = None,
    cpu_only: CpuOnly = False,
    as_json: JSON = False,
) -> None:
    """Show whether activations reach further in longer proteins, and so ask for ranges by length.

    Example: `protquant ranges -m demo --lengths 32,64,128 --plot ranges.png`
    """
    crops = _numbers(lengths) if lengths else ()
    if output is not None:
        check_table(output)
    if plot is not None:
        if plot.suffix != ".png":
            raise ProtquantError(f"{plot}: a picture ends in .png")
        prepare_folder(plot.parent)
    announce(f"loading {model}")
    report = measuring.range_by_length(model, calibration, lengths=crops, bins=parse_lengths(bins), cpu_only=cpu_only)
    growth, summary = report.growth(), report.summary()
    if as_json:
        print_json(
            {
                "model": model,
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
        title = f"{model}: largest magnitude (median over sequences) by residues; growth g: as residues^g"
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


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ProtquantError(f"--lengths {text!r}: give numbers of residues with commas between, such as 64,128,256")
    return tuple(map(int, parts))
