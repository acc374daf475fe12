"""The `protquant` command: each subcommand calls the public function of the same arguments."""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from protquant.checkpoints import import_checkpoint
from protquant.errors import ProtquantError
from protquant.pipelines import Evaluation, contacts_fasta, evaluate, fold_fasta, inspect_model, score
from protquant.pipelines.example import EXAMPLE_RECIPES, example_fasta
from protquant.proteins import json_value, prepare_folder, write_table
from protquant.quant import available_recipes, load_recipe

__all__ = ["app", "main"]

BAD_INPUT = 2
SOME_FAILED = 1

app = typer.Typer(
    name="protquant",
    help="Fold proteins with a quantized ESMFold, and measure what quantization costs.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
# Never narrower than a table: rich would cut its columns at the 80 characters it assumes of a pipe. And a path may hold
# brackets and colons, which are no markup.
console = Console(width=10_000, markup=False, emoji=False)

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Model = Annotated[
    str,
    typer.Option(
        "-m", "--model", help="`demo`, a released name such as `esmfold_v1`, a folder, a `.pt` file, or a hub name."
    ),
]
Quant = Annotated[str, typer.Option("-q", "--quant", help="Recipe: a name of `protquant recipes`, or a YAML file.")]
CpuOnly = Annotated[bool, typer.Option("--cpu-only", help="Do not use a GPU.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
CalibrationFile = Annotated[
    Path | None, typer.Option("--calibration", help="FASTA to calibrate on.  [default: 12 shipped UniProt proteins]")
]
Structures = Annotated[Path | None, typer.Option(help="Folder of PDB/mmCIF files.  [default: the 50 shipped chains]")]
Plots = Annotated[bool, typer.Option(help="Draw pictures.")]


def speaks_to_people(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print errors that are the user's to mend, without a traceback, and exit with 2."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ProtquantError as error:
            typer.echo(f"protquant: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error

    return wrapped


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(json_value(document), indent=1))


def _print_table(rows: Sequence[Mapping[Any, Any]], columns: list[str], title: str = "") -> None:
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        text = rows and isinstance(rows[0].get(column), str)
        table.add_column(_HEADINGS.get(column, column), justify="left" if text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table)


_HEADINGS = {
    "tm_score": "TM",
    "gdt_ts": "GDT-TS",
    "lddt_ca": "lDDT-CA",
    "rmsd_ca": "RMSD",
    "plddt": "pLDDT",
    "mean_plddt": "pLDDT",
    "ptm": "pTM",
    "plddt_error": "pLDDT error",
    "tm_to_float": "TM to float",
    "weight_bits": "W bits",
    "activation_bits": "A bits",
    "weight_bytes": "weight MB",
    "contact_drift": "drift",
    "snr_db": "SNR (dB)",
}


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"
    return str(value)


@app.command()
@speaks_to_people
def fold(
    fasta: Annotated[Path, typer.Option("-i", "--fasta", help="FASTA (plain or .gz) or CSV; `:` between chains.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    model: Model = "demo",
    quant: Quant = "fp32",
    num_recycles: Annotated[
        int | None, typer.Option(help="Times the output is fed back.  [default: as trained]")
    ] = None,
    max_tokens_per_batch: Annotated[int, typer.Option(help="Residues folded together; 0 is one by one.")] = 1024,
    chunk_size: Annotated[int | None, typer.Option(help="Rows of triangle attention.  [default: what fits]")] = None,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    calibration: CalibrationFile = None,
    plots: Plots = True,
    overwrite: Annotated[bool, typer.Option(help="Fold again what is done.")] = False,
    as_json: JSON = False,
) -> None:
    """Fold the records of a FASTA file: PDB, mmCIF, PAE, a picture each, and a table.

    Example: `protquant fold -i proteins.fasta -o out/ --quant w8a8-pwlq`

    A repeated run skips what is done. Exit code 1: some records failed (`failures.csv` says why); 2: nothing could
    be done.
    """
    run = fold_fasta(
        fasta,
        output,
        model,
        quant,
        num_recycles=num_recycles,
        max_tokens_per_batch=max_tokens_per_batch,
        chunk_size=chunk_size,
        cpu_only=cpu_only,
        dtype=dtype,
        calibration=calibration,
        plots=plots,
        overwrite=overwrite,
    )
    if as_json:
        _print_json(run.to_dict())
    elif run.rows:
        _print_table(run.rows, ["name", "length", "chains", "mean_plddt", "ptm", "recycles", "recipe"], str(output))
    if run.failures:
        raise typer.Exit(SOME_FAILED if run.rows else BAD_INPUT)


@app.command()
@speaks_to_people
def contacts(
    fasta: Annotated[Path, typer.Option("-i", "--fasta", help="FASTA (plain or .gz) or CSV, single chains.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    model: Model = "demo",
    quant: Quant = "fp32",
    top: Annotated[float, typer.Option(help="Pairs in the table, in lengths of the sequence.")] = 1.0,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    calibration: CalibrationFile = None,
    plots: Plots = True,
    as_json: JSON = False,
) -> None:
    """Predict contact maps with ESM-2: a table of the most probable pairs, all probabilities, and a picture each.

    Example: `protquant contacts -i proteins.fasta -o out/ -m esm2_t33_650M --quant w8`
    """
    document = contacts_fasta(
        fasta,
        output,
        model,
        quant,
        top=top,
        cpu_only=cpu_only,
        dtype=dtype,
        calibration=calibration,
        plots=plots,
    )
    if as_json:
        _print_json(document)
    else:
        _print_table(document["targets"], ["name", "length", "recipe"], document["table"])
    if document["failures"]:
        raise typer.Exit(SOME_FAILED if document["targets"] else BAD_INPUT)


_STRUCTURE_COLUMNS = [
    *("recipe", "targets", "tm_score", "lddt_ca", "rmsd_ca", "plddt", "plddt_error", "tm_to_float"),
    *("weight_bits", "activation_bits", "weight_bytes"),
]
_CONTACT_COLUMNS = [
    *("recipe", "targets", "long P@L", "long P@L/5", "medium P@L", "short P@L", "local P@L", "contact_drift"),
    *("weight_bits", "activation_bits", "weight_bytes"),
]


def _check_table(output: Path) -> None:
    """Refuse before the work what would be refused after it."""
    if not output.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        raise ProtquantError(f"{output}: a table ends in .csv, .csv.gz or .parquet")
    if output.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise ProtquantError(f"{output}: Parquet needs pyarrow; pip install 'protquant[parquet]', or name a .csv file")
    if output.is_dir():
        raise ProtquantError(f"{output}: this is a folder; name a file in it, such as {output / 'table.csv'}")
    prepare_folder(output.parent)


def _print_evaluation(result: Evaluation) -> None:
    columns = _STRUCTURE_COLUMNS if result.task == "structure" else _CONTACT_COLUMNS
    for name in dict.fromkeys(record["model"] for record in result.records):
        rows = [r | {"weight_bytes": r["weight_bytes"] / 1e6} for r in result.records if r["model"] == name]
        _print_table(rows, columns, name)
    for note in result.notes:
        typer.echo(note)


@app.command(name="evaluate")
@speaks_to_people
def evaluate_command(
    model: Annotated[
        list[str] | None, typer.Option("-m", "--model", help="Repeat for several.  [default: demo]")
    ] = None,
    quant: Annotated[
        list[str] | None, typer.Option("-q", "--quant", help="Repeat for several.  [default: all shipped recipes]")
    ] = None,
    task: Annotated[str, typer.Option(help="structure or contacts.")] = "structure",
    structures: Structures = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many structures.")] = None,
    num_recycles: Annotated[
        int | None, typer.Option(help="Times the output is fed back.  [default: as trained]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Table, .csv or .parquet; a second one, `_targets`, beside it."),
    ] = None,
    calibration: CalibrationFile = None,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    as_json: JSON = False,
) -> None:
    """Score models x recipes against reference structures; the float model is the first row.

    Example: `protquant evaluate -m demo -q w8a8-uniform -q w8a8-pwlq --limit 10`
    """
    if output is not None:
        _check_table(output)
    task_: Literal["structure", "contacts"] = task  # type: ignore[assignment]  # evaluate() checks it
    result = evaluate(
        model or ["demo"],
        quant or available_recipes(),
        task_,
        structures=structures,
        limit=limit,
        num_recycles=num_recycles,
        calibration=calibration,
        cpu_only=cpu_only,
        dtype=dtype,
    )
    # First to the screen, so that a disk that is full by now loses nothing.
    if as_json:
        _print_json(result.to_dict())
    else:
        _print_evaluation(result)
    if output is not None:
        write_table(result.records, output)
        suffix = "".join(output.suffixes[-2 if output.suffix == ".gz" else -1 :])
        write_table(result.targets, output.with_name(f"{output.name.removesuffix(suffix)}_targets{suffix}"))
    for failure in result.failures:
        typer.echo("{model}, {recipe}: {target} failed: {error}".format(**failure), err=True)
    if result.failures:
        raise typer.Exit(SOME_FAILED)


@app.command(name="score")
@speaks_to_people
def score_command(
    prediction: Annotated[Path, typer.Argument(help="Predicted structure, PDB or mmCIF.")],
    reference: Annotated[Path, typer.Argument(help="Reference structure, PDB or mmCIF.")],
    as_json: JSON = False,
) -> None:
    """Score a predicted structure against a reference: TM-score, GDT-TS, lDDT-CA, CA-RMSD.

    Example: `protquant score out/1ahsA.pdb 1ahs.cif`
    """
    scores = score(prediction, reference)
    if as_json:
        _print_json(scores)
    else:
        _print_table([{"score": name, "value": value} for name, value in scores.items()], ["score", "value"])


@app.command(name="import")
@speaks_to_people
def import_command(
    source: Annotated[str, typer.Argument(help="Hugging Face folder or hub name, fair-esm `.pt`, or released name.")],
    output: Annotated[Path, typer.Argument(help="Folder to make.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the checkpoint that is there.")] = False,
    as_json: JSON = False,
) -> None:
    """Convert a checkpoint to protquant's own layout (safetensors, no pickle), checked key by key.

    Example: `protquant import esmfold_3B_v1.pt esmfold/`, then `protquant fold -m esmfold/ ...`
    """
    folder = import_checkpoint(source, output, overwrite)
    if as_json:
        _print_json({"source": source, "output": str(folder)})
    else:
        typer.echo(f"{source} -> {folder}")


@app.command()
@speaks_to_people
def inspect(
    model: Model = "demo",
    quant: Quant = "fp32",
    calibration: CalibrationFile = None,
    sites: Annotated[bool, typer.Option(help="List every site, not only each kind.")] = False,
    as_json: JSON = False,
) -> None:
    """Show what a recipe does to a model: sites, formats, effective bits, memory.

    Example: `protquant inspect -m demo --quant w8a8-pwlq --sites`
    """
    report, document = inspect_model(model, quant, calibration=calibration)
    if as_json:
        _print_json(document)
        return
    frame = report.to_frame()
    if sites:
        columns = ["site", "format", "reason", "effective_bits", "snr_db", "clipped"]
        _print_table(frame[columns].to_dict("records"), columns, f"{model}, {quant}")
    grouped = frame.groupby(["kind", "format"], sort=False).agg(sites=("site", "size"), snr_db=("snr_db", "median"))
    _print_table(grouped.reset_index().to_dict("records"), ["kind", "format", "sites", "snr_db"], "median SNR by kind")
    typer.echo(str(report))
    for length, total in document["memory"].items():
        typer.echo(f"folding {length} residues: about {total / 2**30:.2f} GiB at the peak in float")


@app.command()
@speaks_to_people
def recipes(as_json: JSON = False) -> None:
    """List the recipes that ship with protquant.

    Example: `protquant recipes`
    """
    rows = [{"recipe": name, "description": load_recipe(name).description} for name in available_recipes()]
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows, ["recipe", "description"])


@app.command()
@speaks_to_people
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("protquant-demo"),
    limit: Annotated[int, typer.Option(help="How many of the 50 reference chains to compare on.")] = 8,
    as_json: JSON = False,
) -> None:
    """Fold the example FASTA with the demo model, quantized, and print what quantization costs.

    Example: `protquant demo`
    """
    with example_fasta() as fasta:
        run = fold_fasta(fasta, output, quant="w8a8-pwlq")
    result = evaluate(recipes=EXAMPLE_RECIPES, limit=limit)
    write_table(result.records, output / "comparison.csv")
    if as_json:
        _print_json({"fold": run.to_dict(), "evaluation": result.to_dict()})
    else:
        _print_table(run.rows, ["name", "length", "chains", "mean_plddt", "ptm", "recipe"], f"folded into {output}")
        _print_evaluation(result)
    if run.failures:
        raise typer.Exit(SOME_FAILED)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    app()


if __name__ == "__main__":
    main()
