"""The command that tells what folding will take: `plan`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from protquant import checkpoints, predicting
from protquant.cli.app import (
    JSON,
    SOME_FAILED,
    Backend,
    ChunkSize,
    CpuOnly,
    Dtype,
    Execution,
    MaxMemory,
    Model,
    NumRecycles,
    Quant,
    TokensPerBatch,
    announce,
    app,
    speaks_to_people,
)
from protquant.cli.tables import print_json, print_table
from protquant.reporting.progress import duration

_COMPARED = ("fp32", "w8a8-int8", "w4a8-int4")


@app.command(name="plan")
@speaks_to_people
def plan_command(
    fasta: Annotated[
        Path | None, typer.Option("-i", "--fasta", help="FASTA (plain or .gz) or CSV.  [default: only the machine]")
    ] = None,
    model: Model = "esmfold_v1",
    quant: Quant = "fp32",
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Further recipe whose longest length is told; may be repeated; `none` for none."
            f"  [default: {', '.join(_COMPARED)}; for a quantized model none]"
        ),
    ] = None,
    execution: Execution = None,
    backend: Backend = "auto",
    num_recycles: NumRecycles = None,
    max_tokens_per_batch: TokensPerBatch = 1024,
    chunk_size: ChunkSize = None,
    max_memory: MaxMemory = None,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    measure: Annotated[bool, typer.Option(help="Estimate times by a short measurement.")] = True,
    as_json: JSON = False,
) -> None:
    """Tell what `fold` will take: memory, chunks, time and order; and what fits at all.

    Example: `protquant plan -i proteins.fasta -m esmfold_v1 --quant w8a8-int8 --max-memory 12GiB`

    No model is loaded, and a released one need not be downloaded; other names of the hub are. Exit code 1: some records
    do not fit.
    """
    announce(f"planning {model} by the recipe {quant}")
    plan = predicting.plan_folding(
        fasta,
        model,
        quant,
        compare=_compared(model, quant, compare),
        execution=execution,
        backend=backend,
        num_recycles=num_recycles,
        max_tokens_per_batch=max_tokens_per_batch,
        chunk_size=chunk_size,
        max_memory=max_memory,
        cpu_only=cpu_only,
        dtype=dtype,
        measure=measure,
    )
    if as_json:
        print_json(plan.to_dict())
    else:
        _print(plan)
    if any(row["problem"] for row in plan.targets):
        raise typer.Exit(SOME_FAILED)


def _compared(model: str, quant: str, compare: list[str] | None) -> list[str]:
    if compare is None:
        compare = [] if checkpoints.scheme_of(model) else list(_COMPARED)
    return [name for name in compare if name not in (quant, "none")]


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
