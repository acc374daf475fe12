"""The command `kernels`."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from protquant.cli.app import JSON, SOME_FAILED, app, speaks_to_people
from protquant.cli.tables import print_json, print_table
from protquant.errors import ProtquantError
from protquant.pipelines.bench.roofline import GPUS, roofline

_ROOFLINE_COLUMNS = ["kernel", "shape", "gpu", "megabytes", "gigaoperations", "bound", "predicted microseconds"]
_COLUMNS = ["kernel", "target", "registers", "spill bytes", "shared bytes", "matrix instructions", "problem"]


@app.command(name="kernels")
@speaks_to_people
def kernels_command(
    check: Annotated[
        list[str] | None,
        typer.Option(help="Architecture to compile for: sm_80, sm_90, sm_100, gfx942, or all; may be repeated."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Only variants whose name begins so, such as `linear_int8 (plain`.  [default: all]"),
    ] = None,
    show_roofline: Annotated[
        bool, typer.Option("--roofline", help="Show what kernels take at best on GPUs: predicted, not measured.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Compile the Triton kernels for GPUs that need not be there, and show what the machine code is like.

    Example: `protquant kernels --check sm_90`, or `--only transition` for a part: all 297 variants take minutes.

    Fails where a kernel on integers has no integer matrix instruction, or where values do not fit into registers and
    spill to memory. Needs the package triton (`pip install triton`); nothing runs, and nothing is timed.

    With `--roofline` nothing is compiled: a lower bound of the time of each kernel of a trunk block, from the bytes and
    the operations it cannot do without and the published rates of A100, H100 and MI300X.
    """
    if show_roofline:
        if check:
            raise ProtquantError("--roofline and --check are two tables; ask for one at a time")
        _print_roofline(as_json)
        return
    try:
        from protquant.kernels.gpu.ahead_of_time import compile_variant, variants  # noqa: PLC0415 (triton is optional)
        from protquant.kernels.gpu.tiles import TARGETS  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ProtquantError(
            "kernels are compiled by the package triton, which is not here: pip install triton"
        ) from None
    asked = check or ["all"]
    unknown = sorted({*asked} - {*TARGETS, "all"})
    if unknown:
        raise ProtquantError(f"--check {unknown[0]}: no such architecture here; choose of {', '.join(TARGETS)}, all")
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise ProtquantError("TRITON_INTERPRET is set, so kernels are interpreted and not compiled; unset it")
    targets = TARGETS if "all" in asked else tuple(dict.fromkeys(asked))
    chosen = [(t, v) for t in targets for v in variants(t) if only is None or v.name.startswith(only)]
    if not chosen:
        raise ProtquantError(f"--only {only}: no variant has a name that begins so; leave it out to see all names")
    rows = [compile_variant(variant, target) for target, variant in chosen]
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        lines = [
            (r.name, r.target, r.registers, r.spill_bytes, r.shared_bytes, ", ".join(r.instructions), r.problem or "")
            for r in rows
        ]
        print_table([dict(zip(_COLUMNS, line, strict=True)) for line in lines], _COLUMNS)
    if any(row.problem for row in rows):
        raise typer.Exit(SOME_FAILED)


def _print_roofline(as_json: bool) -> None:
    predictions = roofline()
    if as_json:
        print_json({"predicted": True, "measured": False, "kernels": [asdict(each) for each in predictions]})
        return
    rows = [asdict(each) | {"predicted microseconds": each.microseconds} for each in predictions]
    print_table(
        rows,
        _ROOFLINE_COLUMNS,
        "PREDICTED from published rates, not measured; a lower bound, without exponentials of attention",
    )
    for gpu in GPUS.values():
        typer.echo(f"{gpu.name}: {gpu.int8 / 1e12:.0f} TOPS of dense int8, {gpu.bytes / 1e9:.0f} GB/s")
