"""The command that predicts memory and time of folding: `plan`."""

from typing import Any

import typer

from protquant import predicting
from protquant.cli.app import SOME_FAILED, Json, announce
from protquant.cli.commands import command
from protquant.cli.tables import print_json, print_table
from protquant.options import PlanOptions
from protquant.reporting.progress import duration


@command("plan")
def plan(options: PlanOptions, as_json: Json = False) -> None:
    """Show the memory, chunks, time and order of `fold` before it runs, and the longest sequence that fits.

    Example: `protquant plan -i proteins.fasta -m esmfold_v1 --quant w8a8-int8 --max-memory 12GiB`

    No model is loaded. Released models need no download; other names on the hub do. Exit code 1: some records do not
    fit.
    """
    announce(f"planning {options.model} by the recipe {options.quant}")
    plan = predicting.plan_folding(**vars(options))
    if as_json:
        print_json(plan.to_dict())
    else:
        _print(plan)
    if any(row["problem"] for row in plan.targets):
        raise typer.Exit(SOME_FAILED)


def _print(plan: "predicting.FoldingPlan") -> None:
    if plan.targets:
        columns = ["order", "name", "length", "batch", "chunk", "peak GiB", "pair tensors", "peak in", "time"]
        print_table([_target(row) for row in plan.targets], columns, plan.settings["fasta"])
    print_table(
        [
            {
                "recipe": row["recipe"],
                "execution": row["execution"],
                "loaded GiB": row["resident_bytes"] / 2**30,
                "left GiB": max(0, row["available_bytes"]) / 2**30,
                "longest": row["longest_length"] or "does not fit",
            }
            for row in plan.machine
        ],
        ["recipe", "execution", "loaded GiB", "left GiB", "longest"],
        "the longest sequence that fits by itself",
    )
    for row in plan.targets:
        if row["problem"]:
            typer.echo(f"{row['name']}: does not fit: {row['problem']}")
    for note in plan.notes:
        typer.echo(note)
    if plan.seconds:
        typer.echo(
            f"about {duration(plan.seconds)} in all with {plan.settings['threads']} threads, and"
            f" {plan.settings['num_recycles']} recycles; loading is not counted"
        )


def _target(row: dict[str, Any]) -> dict[str, Any]:
    fits = not row["problem"]
    return {
        **row,
        "chunk": ("-" if row["chunk_size"] is None else str(row["chunk_size"])) if fits else "does not fit",
        "peak GiB": row["peak_bytes"] / 2**30 if fits else None,
        "pair tensors": row["pair_tensors"],
        "peak in": row["step"] or "-",
        "time": "-" if row["seconds"] is None else duration(row["seconds"]),
    }
