"""The commands `bench make-checkpoint`, `bench full-size` and `bench memory`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import typer

from protquant import bench as benches
from protquant import running
from protquant.bench import full_size
from protquant.bench.full_size.options import FullSizeOptions, MakeCheckpointOptions, MemoryOptions
from protquant.cli.app import SOME_FAILED, Json
from protquant.cli.bench import Output, bench, check_output
from protquant.cli.commands import command
from protquant.cli.tables import print_json, print_table
from protquant.errors import ProtquantError


@command("make-checkpoint", bench)
def make_checkpoint_command(options: MakeCheckpointOptions, as_json: Json = False) -> None:
    """Write a checkpoint of random weights in the layout of a released ESMFold: 8.4 GB, in files of 2 GB.

    Example: `protquant bench make-checkpoint random-esmfold/ --like esmfold_v1`
    """
    folder = options.folder
    sizes = full_size.sizes_like(options.like, layers=options.layers, width=options.width, blocks=options.blocks)
    made = full_size.make_checkpoint(folder, sizes, seed=options.seed, say=_say)
    if as_json:
        print_json(made)
        return
    typer.echo(
        f"{folder}: {made['parameters']:,} random weights, {made['bytes'] / 1e9:.2f} GB in {made['shards']} files,"
        f" after {made['seconds']:.0f} s"
    )


@command("full-size", bench)
def full_size_command(options: FullSizeOptions, output: Output = None, as_json: Json = False) -> None:
    """Measure a model of the released size: quantize it, fold within memory limits, and time it beside transformers.

    Each stage runs in a process of its own, and its result is saved: after an interruption, run the command again.

    Example: `protquant bench full-size random-esmfold/ --work bench/ --threads 2 -o full_size.json`
    """
    check_output(output)
    plan = _plan(options, running.pick_device(options.cpu_only).type)
    report = full_size.bench_full_size(plan=plan, say=_say, **_without(options, "quants", "contenders", "lengths"))
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
def memory_command(options: MemoryOptions, output: Output = None, as_json: Json = False) -> None:
    """Compare the memory that `plan` predicts with the peak of `fold --max-memory`, for several lengths and recipes.

    Example: `protquant bench memory random-esmfold/ --work bench/ --threads 2 -o memory.json`
    """
    check_output(output)
    on_cpu = running.pick_device(options.cpu_only).type == "cpu"
    combinations = full_size.COMBINATIONS if on_cpu else full_size.COMBINATIONS_ON_GPU
    _check_recipes(options.quants, [each.recipe for each in combinations])
    chosen = [each for each in combinations if not options.quants or each.recipe in options.quants]
    report = full_size.bench_memory(combinations=chosen, say=_say, **_without(options, "quants"))
    if as_json:
        print_json(report.to_dict())
    else:
        rows = report.rows()
        print_table(rows, list(rows[0]), f"peaks of memory, {options.num_recycles} recycles")
        for line in (*report.notes(), *benches.allocator_note(), str(report.machine)):
            typer.echo(line)
    if output is not None:
        report.write(output)
    if report.failed:
        raise typer.Exit(SOME_FAILED)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _without(options: FullSizeOptions | MemoryOptions, *names: str) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name not in names}


def _check_recipes(quants: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in quants if name not in known]:
        raise ProtquantError(
            f"--quant {unknown[0]}: no recipe of this benchmark; choose of {', '.join(dict.fromkeys(known))}"
        )


def _plan(options: FullSizeOptions, device: str) -> "full_size.Plan":
    """Return the plan of the benchmark, restricted to the chosen recipes, candidates and lengths."""
    plan = full_size.FULL_SIZE if device == "cpu" else full_size.FULL_SIZE_ON_GPU
    if quants := options.quants:
        _check_recipes(quants, [each.recipe for each in plan.preparations])
        plan = replace(
            plan,
            preparations=tuple(each for each in plan.preparations if each.recipe in quants),
            folds=tuple(each for each in plan.folds if each.recipe in quants),
            contenders=tuple(name for name in plan.contenders if name in (*full_size.FLOAT_CANDIDATES, *quants)),
        )
    if options.contenders:
        plan = replace(plan, contenders=tuple(dict.fromkeys(options.contenders)))
    return replace(plan, lengths=tuple(dict.fromkeys(options.lengths))) if options.lengths else plan
