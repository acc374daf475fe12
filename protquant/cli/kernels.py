"""The command `kernels`."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import Annotated

import typer

from protquant import bench
from protquant.cli.app import SOME_FAILED, Json
from protquant.cli.commands import command
from protquant.cli.tables import print_json, print_table
from protquant.errors import ProtquantError
from protquant.options import Option

_ROOFLINE_COLUMNS = ["kernel", "shape", "gpu", "megabytes", "gigaoperations", "bound", "predicted microseconds"]
_TUNED_COLUMNS = ["kernel", "work", "table us", "best us", "x", "tile", "tried"]
_TUNED_LENGTH = 384
_COLUMNS = ["kernel", "target", "registers", "spill bytes", "shared bytes", "matrix instructions", "problem"]


@command("kernels")
def kernels(
    check: Annotated[
        Sequence[str] | None, Option("Architecture to compile for: sm_80, sm_90, sm_100, gfx942, or all.")
    ] = None,
    only: Annotated[
        str | None,
        Option("Only variants, or kernels to tune, whose names begin with this: `linear_int8 (plain`.", none="all"),
    ] = None,
    show_roofline: Annotated[
        bool, Option("Show lower bounds of the time of kernels on GPUs: predicted, not measured.", ("--roofline",))
    ] = False,
    tune: Annotated[
        bool, Option("Find the fastest tiles on this machine's GPU, and save them for later runs.", ("--tune",))
    ] = False,
    length: Annotated[
        int | None, Option("Number of residues of the protein for --tune.", none="384", at_least=16)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile the Triton kernels for GPUs, present or not, and show registers, memory and instructions.

    Example: `protquant kernels --check sm_90`, with `--only transition` for a part: all variants take minutes.

    The command fails if an integer kernel has no integer matrix instruction, or if registers spill to memory. It needs
    the package triton (`pip install triton`), and runs no kernel.

    `--roofline` compiles nothing: it shows a lower bound of the time of each kernel of a trunk block, computed from its
    bytes and operations and from the published rates of A100, H100 and MI300X.

    `--tune` times each kernel with several tiles on this machine's GPU, in a minute or two. Tiles that are faster than
    those of the built-in table are saved in the cache folder, and later runs use them.
    """
    if sum((tune, show_roofline, bool(check))) > 1:
        raise ProtquantError("--check, --roofline and --tune are three tables; ask for one at a time")
    if tune:
        _tune(length or _TUNED_LENGTH, only, as_json)
        return
    if length is not None:
        raise ProtquantError("--length is that of --tune, which was not asked for")
    if show_roofline:
        _print_roofline(as_json)
        return
    _need_triton()
    from protquant.kernels.triton.ahead_of_time import compile_variant, variants  # noqa: PLC0415 (triton is optional)
    from protquant.kernels.triton.tiles import TARGETS  # noqa: PLC0415

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


def _need_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        raise ProtquantError("kernels are compiled by the package triton, which is not here: pip install triton")


def _tune(length: int, only: str | None, as_json: bool) -> None:
    _need_triton()
    import torch  # noqa: PLC0415 (its import takes seconds, and other tables need none of it)

    if not torch.cuda.is_available():
        raise ProtquantError("--tune times kernels on a GPU, and torch sees none here")
    from triton.testing import do_bench  # noqa: PLC0415 (triton is optional)

    from protquant.bench.tuning import cases_of, tune  # noqa: PLC0415
    from protquant.kernels.triton.tuned import keep_tiles  # noqa: PLC0415

    device = torch.device("cuda")
    cases = (case for case in cases_of(device, length) if only is None or case.key.startswith(only))
    found = tune(cases, lambda run: 1000 * do_bench(run, warmup=10, rep=40, return_mode="median"))
    if not found:
        raise ProtquantError(f"--only {only}: no kernel that is tuned has a name that begins so")
    gpu = torch.cuda.get_device_name(device)
    tiles = {each.key: None if each.best == each.default else each.best for each in found}
    try:
        path = keep_tiles(gpu, tiles)
        said = "PROTQUANT_CACHE is off: not kept" if path is None else f"kept in {path}"
    except ProtquantError as error:
        path, said = None, f"NOT kept: {error}"
    if as_json:
        document = {"gpu": gpu, "file": None if path is None else str(path), "said": said}
        print_json(document | {"kernels": [asdict(each) for each in found]})
        return
    lines = [
        (
            each.key,
            each.what,
            each.default_microseconds,
            each.best_microseconds,
            each.default_microseconds / each.best_microseconds,
            " ".join(map(str, astuple(each.best))),
            f"{each.tried}, {each.failed} failed",
        )
        for each in found
    ]
    print_table([dict(zip(_TUNED_COLUMNS, line, strict=True)) for line in lines], _TUNED_COLUMNS, gpu)
    typer.echo(said)


def _print_roofline(as_json: bool) -> None:
    predictions = bench.roofline()
    if as_json:
        print_json({"predicted": True, "measured": False, "kernels": [asdict(each) for each in predictions]})
        return
    rows = [asdict(each) | {"predicted microseconds": each.microseconds} for each in predictions]
    print_table(
        rows,
        _ROOFLINE_COLUMNS,
        "PREDICTED from published rates, not measured; a lower bound, without exponentials of attention",
    )
    for gpu in bench.GPUS.values():
        typer.echo(f"{gpu.name}: {gpu.int8 / 1e12:.0f} TOPS of dense int8, {gpu.bytes / 1e9:.0f} GB/s")
