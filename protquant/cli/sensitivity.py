"""The command on what each part of a model costs: `sensitivity`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from protquant import choosing, predicting
from protquant.cli.app import JSON, CalibrationFile, CpuOnly, Dtype, Model, announce, app, speaks_to_people
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.running.choices import DRIFT_POWERS

__all__ = ["By", "DriftName", "Granularity", "GroupSize", "check_picture", "parse_numbers"]

By = Annotated[str, typer.Option(help="What a part is: site, module, kind (of site, in a block) or block.")]
Granularity = Annotated[str, typer.Option(help="Scales of weights: per channel, group, or both.")]
GroupSize = Annotated[int, typer.Option(help="Of groups in rows of weights.")]
DriftName = Annotated[str | None, typer.Option("--drift", help=f"What counts: {', '.join(DRIFT_POWERS)}.")]


def parse_numbers(text: str, what: str, number: Callable[[str], Any] = int) -> list[Any]:
    """Numbers that are separated by commas; none for an empty text."""
    try:
        return [number(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ProtquantError(f"{what} {text!r}: give numbers with commas between them, such as 2,3,4") from None


def check_picture(path: Path | None) -> None:
    """Refuse before the work what would be refused after it."""
    if path is not None and path.suffix.lower() != ".png":
        raise ProtquantError(f"{path}: pictures are PNG; name a file that ends in .png")


def _print(found: "choosing.Sensitivity", model: str, drift: str) -> None:
    columns = ["group", "format", "bits", *found.drifts]
    print_table(found.most_sensitive(drift), columns, f"{model}: parts of the largest {drift} with the fewest bits")
    for note in found.notes:
        typer.echo(note)


@app.command(name="sensitivity")
@speaks_to_people
def sensitivity_command(
    model: Model = "demo",
    base: Annotated[
        str, typer.Option(help="Recipe that says which sites are tried, and in which form activations are.")
    ] = "w8a8-uniform",
    by: By = "site",
    weight_bits: Annotated[str, typer.Option(help="Widths of weights; empty for none.")] = "8,4,3,2",
    activation_bits: Annotated[str, typer.Option(help="Widths of activations; empty for none.")] = "8,6,4",
    granularity: Granularity = "channel",
    group_size: GroupSize = 64,
    drift: DriftName = None,
    sequences: Annotated[
        Path | None,
        typer.Option(help="FASTA to measure drift on.  [default: those shipped for calibration, or 3 shipped chains]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many sequences.")] = None,
    num_recycles: Annotated[
        int | None, typer.Option(help="Times the output is fed back.  [default: as trained]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Table, .csv or .parquet; what it holds already is not measured again."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Heat map, .png: blocks x parts.")] = None,
    calibration: CalibrationFile = None,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    as_json: JSON = False,
) -> None:
    """Measure what quantizing each part of a model alone does to its predictions.

    Example: `protquant sensitivity -m demo --by module -o sensitivity.csv --plot sensitivity.png`
    """
    if output is not None:
        check_table(output)
    check_picture(plot)
    by_: Literal["site", "module", "kind", "block"] = by  # type: ignore[assignment]  # sensitivity() checks both
    granularity_: Literal["channel", "group", "both"] = granularity  # type: ignore[assignment]
    announce(f"loading {model}")
    found = choosing.sensitivity(
        model,
        base=base,
        by=by_,
        weight_bits=parse_numbers(weight_bits, "--weight-bits"),
        activation_bits=parse_numbers(activation_bits, "--activation-bits"),
        granularity=granularity_,
        group_size=group_size,
        sequences=sequences,
        limit=limit,
        num_recycles=num_recycles,
        calibration=calibration,
        output=output,
        cpu_only=cpu_only,
        dtype=dtype,
    )
    if plot is not None:
        predicting.save_figure(choosing.sensitivity_figure(found, drift), plot)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, model, drift or found.drifts[0])
