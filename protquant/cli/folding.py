"""Commands that predict: `fold` and `contacts`."""

from pathlib import Path
from typing import Annotated

import typer

from protquant import predicting
from protquant.cli.app import (
    BAD_INPUT,
    JSON,
    SOME_FAILED,
    Backend,
    Cache,
    CalibrationFile,
    ChunkSize,
    CpuOnly,
    Dtype,
    Execution,
    MaxMemory,
    Model,
    NumRecycles,
    Plots,
    Quant,
    TokensPerBatch,
    announce,
    app,
    speaks_to_people,
)
from protquant.cli.tables import print_json, print_table

EvenSo = Annotated[
    bool,
    typer.Option(
        "--even-so",
        help="Ask the demo model about sequences that it has not memorized (it answers nonsense), and take what reads"
        " as DNA or RNA for proteins.",
    ),
]


@app.command()
@speaks_to_people
def fold(
    fasta: Annotated[Path, typer.Option("-i", "--fasta", help="FASTA (plain or .gz) or CSV; `:` between chains.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    model: Model = "esmfold_v1",
    quant: Quant = "fp32",
    execution: Execution = None,
    backend: Backend = "auto",
    num_recycles: NumRecycles = None,
    recycle_tolerance: Annotated[
        float,
        typer.Option(
            help="Recycle no more once distances between C-alphas change by less, in angstrom (RMS); proteins are then"
            " folded one by one. 0: never."
        ),
    ] = 0.0,
    max_tokens_per_batch: TokensPerBatch = 1024,
    chunk_size: ChunkSize = None,
    max_memory: MaxMemory = None,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    calibration: CalibrationFile = None,
    cache: Cache = True,
    plots: Plots = True,
    overwrite: Annotated[bool, typer.Option(help="Fold again what is done.")] = False,
    even_so: EvenSo = False,
    shard: Annotated[
        str | None, typer.Option(help="Fold only a part, such as `3/16`; `merge` puts shards together.", metavar="I/N")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that fold at once and share the weights (CPU, Linux).")] = 1,
    layout: Annotated[
        str, typer.Option(help="Whose names and files targets get: `protquant`, `colabfold` or `nf-core`.")
    ] = "protquant",
    skip_output: Annotated[
        str,
        typer.Option(
            help="Files not to write: `cif`, `pdb`, `pae`, `plots`, in other layouts `scores`; with commas between."
        ),
    ] = "",
    b_factor: Annotated[
        str, typer.Option(help="B-factors: `plddt`, or `error`, which says how far off each atom is expected to be.")
    ] = "plddt",
    pae_in_cif: Annotated[
        int, typer.Option(help="Most residues of a target whose PAE goes into the mmCIF, too; 0 for none.")
    ] = 400,
    as_json: JSON = False,
) -> None:
    """Fold the records of a FASTA file: PDB, mmCIF, PAE, a picture each, and a table.

    Example: `protquant fold -i proteins.fasta -o out/ --quant w8a8-pwlq`

    With the files of nf-core/proteinfold: `protquant fold -i proteins.fasta -o out/ --layout nf-core`

    A repeated run skips what is done. Exit code 1: some records failed (`failures.csv` says why); 2: nothing could
    be done.
    """
    announce(f"loading {model} for the recipe {quant}")
    run = predicting.fold_fasta(
        fasta,
        output,
        model,
        quant,
        execution=execution,
        backend=backend,
        num_recycles=num_recycles,
        recycle_tolerance=recycle_tolerance,
        max_tokens_per_batch=max_tokens_per_batch,
        chunk_size=chunk_size,
        max_memory=max_memory,
        cpu_only=cpu_only,
        dtype=dtype,
        calibration=calibration,
        cache=cache,
        plots=plots,
        overwrite=overwrite,
        even_so=even_so,
        shard=shard,
        workers=workers,
        layout=layout,
        skip_output=[name.strip() for name in skip_output.split(",") if name.strip()],
        b_factor=b_factor,
        pae_in_cif=pae_in_cif,
    )
    if as_json:
        print_json(run.to_dict())
    elif run.rows:
        interfaces = ["iptm"] if any(row["chains"] > 1 for row in run.rows) else []
        columns = ["name", "length", "chains", "mean_plddt", "ptm", *interfaces, "ca_outliers", "clashes", "recycles"]
        columns += ["recipe", "execution", "kernels", "warnings"]
        print_table(run.rows, columns, str(output))
    if run.failures:
        raise typer.Exit(SOME_FAILED if run.rows else BAD_INPUT)


@app.command()
@speaks_to_people
def merge(
    output: Annotated[Path, typer.Argument(help="Output folder of `fold --shard`.")],
    fasta: Annotated[
        Path | None, typer.Option("-i", "--fasta", help="File that was folded, for the order of the table.")
    ] = None,
    even_so: Annotated[bool, typer.Option("--even-so", help="Also merge shards that were interrupted.")] = False,
    as_json: JSON = False,
) -> None:
    """Put the shards of a large run together: one manifest, one table, as if it had been one run.

    Example: `protquant merge out/ -i proteins.fasta`
    """
    merged = predicting.merge_shards(output, fasta, even_so=even_so)
    if as_json:
        print_json(merged)
        return
    typer.echo("{output}: {shards} shards, {done} targets are done, {failed} failed".format(**merged))
    if merged["unfinished"]:
        typer.echo(f"{merged['unfinished']} shards were interrupted: `protquant fold` without --shard folds the rest")


@app.command()
@speaks_to_people
def contacts(
    fasta: Annotated[Path, typer.Option("-i", "--fasta", help="FASTA (plain or .gz) or CSV, single chains.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    model: Model = "esm2_t33_650M",
    quant: Quant = "fp32",
    execution: Execution = None,
    backend: Backend = "auto",
    top: Annotated[float, typer.Option(help="Pairs in the table, in lengths of the sequence.")] = 1.0,
    cpu_only: CpuOnly = False,
    dtype: Dtype = "float32",
    calibration: CalibrationFile = None,
    cache: Cache = True,
    plots: Plots = True,
    overwrite: Annotated[bool, typer.Option(help="Predict again what is done.")] = False,
    even_so: EvenSo = False,
    as_json: JSON = False,
) -> None:
    """Predict contact maps with ESM-2: a table of the most probable pairs, all probabilities, and a picture each.

    Example: `protquant contacts -i proteins.fasta -o out/ --quant w8`
    """
    announce(f"loading {model} for the recipe {quant}")
    document = predicting.contacts_fasta(
        fasta,
        output,
        model,
        quant,
        execution=execution,
        backend=backend,
        top=top,
        cpu_only=cpu_only,
        dtype=dtype,
        calibration=calibration,
        cache=cache,
        plots=plots,
        overwrite=overwrite,
        even_so=even_so,
    )
    if as_json:
        print_json(document)
    else:
        print_table(
            document["targets"], ["name", "length", "recipe", "execution", "kernels", "warnings"], document["table"]
        )
    if document["failures"]:
        raise typer.Exit(SOME_FAILED if document["targets"] else BAD_INPUT)
