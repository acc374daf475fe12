"""The command that chooses formats by itself: `auto`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from protquant import choosing, predicting
from protquant.cli.app import JSON, CalibrationFile, CpuOnly, Dtype, Model, announce, app, speaks_to_people
from protquant.cli.sensitivity import By, DriftName, Granularity, GroupSize, check_picture, parse_numbers
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import prepare_folder


@app.command(name="auto")
@speaks_to_people
def auto_command(
    model: Model = "demo",
    target_bits: Annotated[
        float | None, typer.Option(help="Mean effective bits of the weights, scales included.")
    ] = None,
    max_drift: Annotated[float | None, typer.Option(help="Largest drift: the fewest bits within it.")] = None,
    base: Annotated[
        str, typer.Option(help="Recipe whose steps, gains and activations stay; weights get other formats.")
    ] = "w8",
    drift: DriftName = None,
    by: By = "site",
    weight_bits: Annotated[str, typer.Option(help="Widths to choose from.")] = "2,3,4,5,6,8",
    activation_bits: Annotated[str, typer.Option(help="Widths for activations; empty: they stay as in the base.")] = "",
    target_activation_bits: Annotated[float | None, typer.Option(help="Mean bits of the activations.")] = None,
    granularity: Granularity = "both",
    group_size: GroupSize = 64,
    frontier: Annotated[str, typer.Option(help="Other mean bits to choose and measure at.")] = "3,4,5,6",
    compare: Annotated[list[str] | None, typer.Option(help="Recipe to measure beside; repeat for several.")] = None,
    sequences: Annotated[
        Path | None,
        typer.Option(help="FASTA to choose by.  [default: those shipped for calibration, or 3 shipped chains]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many sequences.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="FASTA to measure recipes on.  [default: shipped chains that are not chosen by]")
    ] = None,
    check_limit: Annotated[int, typer.Option(help="Only the first so many of those.")] = 8,
    num_recycles: Annotated[
        int | None, typer.Option(help="Times the output is fed back.  [default: as trained]")
    ] = None,
    choose_recycles: Annotated[int, typer.Option(help="The same while parts are measured one by one.")] = 0,
    table: Annotated[
        Path | None, typer.Option(help="Table of sensitivities, .csv or .parquet, to go on with and to keep.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML file for the recipe.")] = Path("auto.yaml"),
    plot: Annotated[Path | None, typer.Option(help="Picture of the frontier, .png.")] = None,
    calibration: CalibrationFile = None,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    as_json: JSON = False,
) -> None:
    """Choose a format for every weight, write the recipe, and measure it beside uniform widths.

    Example: `protquant auto -m esm2_t6_8M --target-bits 5 -o mine.yaml`, then `protquant evaluate -q mine.yaml ...`
    """
    if table is not None:
        check_table(table)
    check_picture(plot)
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise ProtquantError(f"{output}: a recipe ends in .yaml")
    prepare_folder(output.parent)
    by_: Literal["site", "module", "kind", "block"] = by  # type: ignore[assignment]  # sensitivity() checks both
    granularity_: Literal["channel", "group", "both"] = granularity  # type: ignore[assignment]
    announce(f"loading {model}")
    found = choosing.auto(
        model,
        target_bits,
        max_drift,
        base=base,
        drift=drift,
        by=by_,
        weight_bits=parse_numbers(weight_bits, "--weight-bits"),
        activation_bits=parse_numbers(activation_bits, "--activation-bits"),
        target_activation_bits=target_activation_bits,
        granularity=granularity_,
        group_size=group_size,
        frontier=parse_numbers(frontier, "--frontier", float),
        compare=compare or (),
        sequences=sequences,
        limit=limit,
        check=check,
        check_limit=check_limit,
        num_recycles=num_recycles,
        choose_recycles=choose_recycles,
        calibration=calibration,
        table=table,
        output=output,
        cpu_only=cpu_only,
        dtype=dtype,
    )
    if plot is not None:
        predicting.save_figure(choosing.frontier_figure(found), plot)
    if as_json:
        print_json({"output": str(output), **found.to_dict()})
        return
    columns = ["recipe", "kind", "weight_bits", "activation_bits", "predicted", *found.sensitivity.drifts]
    print_table(found.rows, columns, f"{model}: drift from the float model")
    for note in found.notes:
        typer.echo(note)
    typer.echo(f"recipe: {output}")
