"""Commands that measure: `evaluate`, `score` and `demo`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from protquant import files, measuring
from protquant.cli.app import SOME_FAILED, Json, announce
from protquant.cli.commands import command
from protquant.cli.tables import check_table, print_json, print_table
from protquant.options import DemoOptions, EvaluateOptions, Option, ScoreOptions, TaskName, check_task

_SCORES = ("tm_score", "gdt_ts", "tm_score_full", "gdt_ts_full", "lddt_ca", "rmsd_ca", "n_aligned")
_STRUCTURE_COLUMNS = [
    *("recipe", "targets", "tm_score", "lddt_ca", "rmsd_ca", "plddt", "plddt_error", "tm_to_float", "lddt_drift"),
    *("weight_bits", "activation_bits", "weight_bytes", "execution", "kernels"),
]
_CONTACT_COLUMNS = [
    *("recipe", "targets", "long P@L", "long P@L/5", "medium P@L", "short P@L", "local P@L", "contact_drift"),
    *("weight_bits", "activation_bits", "weight_bytes", "execution", "kernels"),
]
_LANGUAGE_COLUMNS = [
    *("recipe", "targets", "masked_accuracy", "pseudo_perplexity", "logit_kl"),
    *("weight_bits", "activation_bits", "weight_bytes", "execution", "kernels"),
]
_DEMO_COLUMNS = [
    *("recipe", "execution", "targets", "tm_score", "lddt_ca", "rmsd_ca", "tm_to_float", "weight_bits"),
    *("activation_bits", "weight_bytes", "peak_bytes", "seconds", "times_as_fast"),
]
_COLUMNS: dict[TaskName, list[str]] = {
    "structure": _STRUCTURE_COLUMNS,
    "contacts": _CONTACT_COLUMNS,
    "language": _LANGUAGE_COLUMNS,
}


def _print_evaluation(result: "measuring.Evaluation") -> None:
    columns = _COLUMNS[result.task]
    for name in dict.fromkeys(record["model"] for record in result.records):
        rows = [r | {"weight_bytes": r["weight_bytes"] / 1e6} for r in result.records if r["model"] == name]
        print_table(rows, columns, name)
    for note in result.notes:
        typer.echo(note)


_Table = Annotated[
    Path | None, Option("Table, .csv or .parquet; `_targets` and `.resume` are written beside it.", ("-o",))
]


@command("evaluate", recipes=None)
def evaluate(options: EvaluateOptions, output: _Table = None, as_json: Json = False) -> None:
    """Score models x recipes on structures, contacts or hidden residues; the float model is the first row.

    Example: `protquant evaluate -m demo -q w8a8-uniform -q w8a8-pwlq --limit 10`
    """
    if output is not None:
        check_table(output)
    check_task(options.task)
    announce(f"loading {', '.join(options.models)}")
    if output is not None:
        options = replace(options, cache=output.with_suffix(".resume"))
    result = measuring.evaluate(**vars(options))
    # Print first, so that nothing is lost if the disk is full.
    if as_json:
        print_json(result.to_dict())
    else:
        _print_evaluation(result)
    if output is not None:
        files.write_table(result.records, output)
        suffix = "".join(output.suffixes[-2 if output.suffix == ".gz" else -1 :])
        files.write_table(result.targets, output.with_name(f"{output.name.removesuffix(suffix)}_targets{suffix}"))
    for failure in result.failures:
        typer.echo("{model}, {recipe}: {target} failed: {error}".format(**failure), err=True)
    if result.failures:
        raise typer.Exit(SOME_FAILED)


@command("score")
def score(options: ScoreOptions, as_json: Json = False) -> None:
    """Score a predicted structure against a reference: TM-score, GDT-TS, lDDT-CA, CA-RMSD.

    Residues and chains are matched by sequence. TM-score and GDT-TS are normalized by the number of observed residues
    of the reference, and, if its file has the whole sequence (SEQRES), also by its length, as in CASP.

    Example: `protquant score out/1ahsA.pdb 1ahs.cif --reference-chain A --superposed moved.pdb`
    """
    scores = measuring.score(**vars(options))
    if as_json:
        print_json(scores)
        return
    rows = [{"score": name, "value": scores[name], "of": _normalization(name, scores)} for name in _SCORES]
    print_table([row for row in rows if row["value"] is not None], ["score", "value", "of"])
    pairs = ", ".join(f"{ours or '(blank)'} on {theirs or '(blank)'}" for ours, theirs in scores["chains"])
    typer.echo(f"chains matched: {pairs}")
    if scores["full_length"] is None:
        typer.echo("the reference's file does not have the whole sequence of its chains")
    if options.superposed is not None:
        typer.echo(f"superposed: {options.superposed}")


def _normalization(name: str, scores: dict[str, Any]) -> str:
    """Return the normalization of a score in words."""
    seen, paired = scores["reference_length"], scores["n_aligned"]
    if name.endswith("_full"):
        return f"{scores['full_length']} residues of the whole sequence (SEQRES)"
    if name in ("rmsd_ca", "n_aligned"):
        return (
            f"{paired} residues in both, of {seen}" if name == "n_aligned" else f"{paired} residues in both, angstrom"
        )
    return f"{seen} residues of the reference that were seen"


@command("demo")
def demo(options: DemoOptions, as_json: Json = False) -> None:
    """Fold the example FASTA with the demo model on integers, and compare float, simulations and integers.

    The comparison shows accuracy, time and memory.

    Example: `protquant demo`
    """
    announce("loading demo: it folds an example on integers, then compares float, simulations and integers")
    shown = measuring.demonstrate(**vars(options))
    files.write_table(shown.rows, options.output / "comparison.csv")
    if as_json:
        print_json(shown.to_dict())
    else:
        columns = ["name", "length", "chains", "mean_plddt", "ptm", "ca_outliers", "clashes", "recipe", "execution"]
        print_table(shown.run.rows, columns, f"folded into {options.output}")
        megabytes = [
            {"weight_bytes": row["weight_bytes"] / 1e6, "peak_bytes": row["peak_bytes"] and row["peak_bytes"] / 1e6}
            for row in shown.rows
        ]
        print_table([row | each for row, each in zip(shown.rows, megabytes, strict=True)], _DEMO_COLUMNS, "compared")
        for note in shown.notes:
            typer.echo(note)
    for failure in shown.failures:
        typer.echo("{recipe}, {execution}: {target} failed: {error}".format(**failure), err=True)
    if shown.run.failures or shown.failures:
        raise typer.Exit(SOME_FAILED)
