"""The commands `bench make-checkpoint`, `bench full-size` and `bench memory`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from protquant import bench as benches
from protquant import running
from protquant.bench import full_size
from protquant.bench.choices import FULL_SIZE_PARTS
from protquant.cli.app import SOME_FAILED, Json
from protquant.cli.bench import Output, bench, check_output
from protquant.cli.commands import command
from protquant.cli.tables import print_json, print_table
from protquant.errors import ProtquantError
from protquant.options import CalibrationFile, CpuOnly, Option

Threads = Annotated[int | None, Option("Number of threads to compute with.", none="torch's", at_least=1)]
Seed = Annotated[int, Option("Seed of the random weights and sequences.")]


@command("make-checkpoint", bench)
def make_checkpoint_command(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    like: Annotated[str, typer.Option(help="Released folding model whose layout and sizes are taken.")] = "esmfold_v1",
    layers: Annotated[int | None, typer.Option(help="Layers of the language model.  [default: as released]")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the language model.  [default: as released]")] = None,
    blocks: Annotated[int | None, typer.Option(help="Blocks of the trunk.  [default: as released]")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a checkpoint of random weights, laid out as a released ESMFold: 8.4 GB, in files of 2 GB.

    Example: `protquant bench make-checkpoint random-esmfold/ --like esmfold_v1`
    """
    sizes = full_size.sizes_like(like, layers=layers, width=width, blocks=blocks)
    made = full_size.make_checkpoint(folder, sizes, seed=seed, say=lambda line: typer.echo(line, err=True))
    if as_json:
        print_json(made)
        return
    typer.echo(
        f"{folder}: {made['parameters']:,} random weights, {made['bytes'] / 1e9:.2f} GB in {made['shards']} files,"
        f" after {made['seconds']:.0f} s"
    )


@command("full-size", bench)
def full_size_command(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of `protquant bench make-checkpoint`.")],
    folder: Annotated[
        Path, typer.Option("--work", help="Folder for quantized checkpoints, results and logs; a later run goes on.")
    ],
    part: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(FULL_SIZE_PARTS)}; may be repeated.  [default: all]")
    ] = None,
    quant: Annotated[
        list[str] | None,
        typer.Option("-q", "--quant", help="Only these of the recipes; may be repeated.  [default: all]"),
    ] = None,
    contender: Annotated[
        list[str] | None,
        typer.Option(
            help="Who takes turns: a setting of transformers (`transformers-float32`, `transformers-bfloat16`) or a"
            " recipe; may be repeated.  [default: all]"
        ),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Residues, by turns; may be repeated.  [default: 64, 128, 256; on a GPU 256, 512, 1024]"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 3,
    threads: Threads = None,
    num_recycles: Annotated[int, typer.Option(help="Times the output is fed back.")] = 0,
    again: Annotated[
        list[str] | None,
        typer.Option(help="Stage to run though its result stands, or the beginning of its name; `all` for all."),
    ] = None,
    calibration: CalibrationFile = None,
    cpu_only: CpuOnly = False,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint of full size: quantize and fold within limits of memory, and by turns with transformers.

    Each stage is a process of its own, and its result is kept: run the command again to go on where it was stopped.

    Example: `protquant bench full-size random-esmfold/ --work bench/ --threads 2 -o full_size.json`
    """
    check_output(output)
    report = full_size.bench_full_size(
        checkpoint,
        folder,
        _plan(quant, contender, length, running.pick_device(cpu_only).type),
        parts=part or FULL_SIZE_PARTS,
        rounds=rounds,
        threads=threads,
        num_recycles=num_recycles,
        seed=seed,
        again=again or (),
        calibration=calibration,
        cpu_only=cpu_only,
        say=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        for title, rows in report.tables():
            if rows:
                print_table(rows, list(rows[0]), title)
        for line in (*report.notes(), *benches.allocator_note(), str(report.machine)):
            typer.echo(line)
    if output is not None:
        report.write(output)
    if report.failed:
        raise typer.Exit(SOME_FAILED)


@command("memory", bench)
def memory_command(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of `protquant bench make-checkpoint`.")],
    folder: Annotated[
        Path, typer.Option("--work", help="Folder of `bench full-size`, with quantized checkpoints and results.")
    ],
    quant: Annotated[
        list[str] | None,
        typer.Option("-q", "--quant", help="Only these of the recipes; may be repeated.  [default: all]"),
    ] = None,
    threads: Threads = None,
    num_recycles: Annotated[int, typer.Option(help="Times the output is fed back.")] = 1,
    again: Annotated[bool, typer.Option(help="Run again what stands in the work folder.")] = False,
    cpu_only: CpuOnly = False,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Hold the memory that `plan` promises to the peak of `fold --max-memory`, each in a process of its own.

    Example: `protquant bench memory random-esmfold/ --work bench/ --threads 2 -o memory.json`
    """
    check_output(output)
    on_cpu = running.pick_device(cpu_only).type == "cpu"
    combinations = full_size.COMBINATIONS if on_cpu else full_size.COMBINATIONS_ON_GPU
    chosen = [each for each in combinations if quant is None or each.recipe in quant]
    if not chosen:
        known = ", ".join(dict.fromkeys(each.recipe for each in combinations))
        raise ProtquantError(f"--quant {', '.join(quant or [])}: no recipe of this benchmark; choose of {known}")
    report = full_size.bench_memory(
        checkpoint,
        folder,
        chosen,
        threads=threads,
        num_recycles=num_recycles,
        seed=seed,
        again=again,
        cpu_only=cpu_only,
        say=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        rows = report.rows()
        print_table(rows, list(rows[0]), f"peaks of memory, {num_recycles} recycles")
        for line in (*report.notes(), *benches.allocator_note(), str(report.machine)):
            typer.echo(line)
    if output is not None:
        report.write(output)
    if report.failed:
        raise typer.Exit(SOME_FAILED)


def _plan(
    quants: list[str] | None, contenders: list[str] | None, lengths: list[int] | None, device: str
) -> "full_size.Plan":
    """The plan of the full size, or what was chosen of it."""
    plan = full_size.FULL_SIZE if device == "cpu" else full_size.FULL_SIZE_ON_GPU
    if quants is not None:
        known = [each.recipe for each in plan.preparations]
        if unknown := [name for name in quants if name not in known]:
            raise ProtquantError(f"--quant {unknown[0]}: no recipe of this benchmark; choose of {', '.join(known)}")
        plan = replace(
            plan,
            preparations=tuple(each for each in plan.preparations if each.recipe in quants),
            folds=tuple(each for each in plan.folds if each.recipe in quants),
            contenders=tuple(name for name in plan.contenders if name in (*full_size.FLOAT_CANDIDATES, *quants)),
        )
    if contenders is not None:
        plan = replace(plan, contenders=tuple(dict.fromkeys(contenders)))
    return plan if lengths is None else replace(plan, lengths=tuple(dict.fromkeys(lengths)))
