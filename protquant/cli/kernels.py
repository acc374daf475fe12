"""The command `kernels`."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from protquant.cli.app import JSON, SOME_FAILED, app, speaks_to_people
from protquant.cli.tables import print_json, print_table
from protquant.errors import ProtquantError

_COLUMNS = ["kernel", "target", "registers", "spill bytes", "shared bytes", "matrix instructions", "problem"]


@app.command(name="kernels")
@speaks_to_people
def kernels_command(
    check: Annotated[
        list[str] | None,
        typer.Option(help="Architecture to compile for: sm_80, sm_90, sm_100, gfx942, or all; may be repeated."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Compile the Triton kernels for GPUs that need not be there, and show what the machine code is like.

    Example: `protquant kernels --check sm_90`

    Fails where a kernel on integers has no integer matrix instruction, or where values do not fit into registers and
    spill to memory. Needs the package triton (`pip install triton`); nothing runs, and nothing is timed.
    """
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
    rows = [compile_variant(variant, target) for target in targets for variant in variants(target)]
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
