"""The command that makes quantized checkpoints: `quantize`."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import preparing
from protquant.cli.app import JSON, CalibrationFile, CpuOnly, Model, announce, app, speaks_to_people
from protquant.cli.reports import print_report
from protquant.cli.tables import print_json


@app.command(name="quantize")
@speaks_to_people
def quantize_command(
    quant: Annotated[str, typer.Option("-q", "--quant", help="Recipe: a name of `protquant recipes`, or a YAML file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    model: Model = "demo",
    calibration: CalibrationFile = None,
    state: Annotated[
        Path | None, typer.Option(help="File that recipes that train save their state to, and go on from.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of recipes that train.")] = 0,
    cpu_only: CpuOnly = False,
    sites: Annotated[bool, typer.Option(help="List every site, not only each kind.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the checkpoint that is there.")] = False,
    as_json: JSON = False,
) -> None:
    """Quantize a model and save it: packed codes, scales, and what loads them without calibrating again.

    Example: `protquant quantize -m esmfold_v1 --quant w8a8-int8 -o small/`, then `protquant fold -m small/ ...`

    One block of the model at a time is in memory in float: ESMFold takes 6 GiB, not 20. An interrupted run leaves
    `small.partial/`, and the same command goes on from there. Recipes that calibrate take minutes; others, such as
    `w8`, take as long as it takes to read the weights and to round them.
    """
    announce(f"opening {model}")
    report, document = preparing.quantize_checkpoint(
        model,
        output,
        quant,
        calibration=calibration,
        state=state,
        seed=seed,
        cpu_only=cpu_only,
        overwrite=overwrite,
    )
    if as_json:
        print_json(document)
        return
    print_report(report, f"{model}, {quant}", sites)
    typer.echo(str(report))
    typer.echo(f"{model} -> {output}: {document['bytes_on_disk'] / 1e6:.2f} MB on disk")
