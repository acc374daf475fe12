"""The commands `bench ops`, `bench trunk`, `bench lm`, `bench fold` and `bench agreement`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from protquant import bench as benches
from protquant import files, running
from protquant.bench.choices import (
    BACKENDS,
    DEFAULT_LM_BASELINES,
    LINEAR_SHAPES,
    LM_BASELINES,
    LM_PRESETS,
    TRUNK_BASELINES,
    TRUNK_PRESETS,
    WORKLOADS,
)
from protquant.cli.app import PANELS, SOME_FAILED, Json, announce, app
from protquant.cli.commands import command
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import prepare_folder
from protquant.options import CalibrationFile, CpuOnly, Model, Structures

_DEFAULT_QUANTS = ("w8a8-int8",)

bench = typer.Typer(
    name="bench",
    help="Time our execution against others', by turns, each in a process of its own: medians of ratios, peak memory, "
    "raw times. And how far integers are from what they stand for.",
    no_args_is_help=True,
)
app.add_typer(bench, rich_help_panel=list(PANELS)[-1])

Quants = Annotated[
    list[str] | None,
    typer.Option(
        "-q",
        "--quant",
        help=f"Recipe to run on integers; may be repeated; `none` for none.  [default: {', '.join(_DEFAULT_QUANTS)}]",
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="Runs of each that are timed.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to compute with.  [default: torch's]")]
BackendName = Annotated[str, typer.Option("--backend", help=f"Of the integer kernels: {', '.join(BACKENDS)}.")]
Memory = Annotated[bool, typer.Option("--memory", help="Measure the peak memory of activations too.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write times of every round and facts of the machine as .json.")
]
Seed = Annotated[int, typer.Option(help="Of weights and inputs.")]


def _one_of(names: Iterable[str], default: str = "all") -> str:
    return f"{', '.join(names)}; may be repeated.  [default: {default}]"


@command("ops", bench)
def ops_command(
    shape: Annotated[list[str] | None, typer.Option(help=_one_of(LINEAR_SHAPES))] = None,
    rounds: Rounds = 20,
    threads: Threads = None,
    backend: BackendName = "auto",
    cpu_only: CpuOnly = False,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time one linear layer: float32, bfloat16, torch's bare int8 product, and ours.

    Example: `protquant bench ops --shape pair --threads 2`
    """
    check_output(output)
    announce("loading the kernels")
    report = benches.bench_ops(
        shape or list(LINEAR_SHAPES),
        rounds=rounds,
        threads=threads,
        backend=backend,
        device=running.pick_device(cpu_only),
        seed=seed,
    )
    _show(report, output, as_json)


@command("trunk", bench)
def trunk_command(
    preset: Annotated[str, typer.Option(help=f"Sizes: {', '.join(TRUNK_PRESETS)}.")] = "esmfold_v1",
    length: Annotated[int, typer.Option(min=1, help="Residues.")] = 256,
    quant: Quants = None,
    baseline: Annotated[list[str] | None, typer.Option(help=_one_of(TRUNK_BASELINES))] = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    backend: BackendName = "auto",
    memory: Memory = False,
    blocks: Annotated[int, typer.Option(min=1, help="How many, one after the other.")] = 1,
    chunk_size: Annotated[
        int | None, typer.Option(min=1, help="Rows of triangle attention at a time, of float models.  [default: all]")
    ] = None,
    cpu_only: CpuOnly = False,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time one block of ESMFold's trunk, or more, with random weights against transformers' own with the same.

    Example: `protquant bench trunk --preset esmfold_v1 --length 256 --threads 2 --memory -o trunk.json`
    """
    check_output(output)
    announce(f"making a trunk of the size {preset}")
    report = benches.bench_trunk(
        preset,
        length,
        _quants(quant),
        baselines=baseline or TRUNK_BASELINES,
        rounds=rounds,
        threads=threads,
        backend=backend,
        memory=memory,
        blocks=blocks,
        chunk_size=chunk_size,
        device=running.pick_device(cpu_only),
        seed=seed,
    )
    _show(report, output, as_json)


@command("lm", bench)
def lm_command(
    preset: Annotated[str, typer.Option(help=f"Sizes: {', '.join(LM_PRESETS)}.")] = "esm2_t33_650M",
    workload: Annotated[str, typer.Option(help=f"{', '.join(WORKLOADS)} or both.")] = "both",
    quant: Quants = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help=_one_of(LM_BASELINES, ", ".join(DEFAULT_LM_BASELINES)))
    ] = None,
    esm_cpp_python: Annotated[
        str | None,
        typer.Option(help="Interpreter of an environment that has esm-cpp, which needs numpy below 2."),
    ] = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    backend: BackendName = "auto",
    memory: Memory = False,
    cpu_only: CpuOnly = False,
    seed: Seed = 0,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time the logits of ESM-2 with random weights against transformers and others with the same.

    Example: `protquant bench lm --preset esm2_t30_150M --workload ragged --threads 2`
    """
    check_output(output)
    if workload != "both" and workload not in WORKLOADS:
        raise ProtquantError(f"--workload {workload}: choose one of {', '.join(WORKLOADS)}, both")
    announce(f"making a language model of the size {preset}")
    report = benches.bench_lm(
        preset,
        list(WORKLOADS) if workload == "both" else [cast("benches.Workload", workload)],
        _quants(quant),
        baselines=baseline or DEFAULT_LM_BASELINES,
        rounds=rounds,
        threads=threads,
        backend=backend,
        memory=memory,
        device=running.pick_device(cpu_only),
        esm_cpp_python=esm_cpp_python,
        seed=seed,
    )
    _show(report, output, as_json)


@command("fold", bench)
def fold_command(
    model: Model = "demo",
    quant: Quants = None,
    fasta: Annotated[
        Path | None, typer.Option("-i", "--fasta", help="Its first record is folded.  [default: a shipped example]")
    ] = None,
    num_recycles: Annotated[
        int | None, typer.Option(help="Times the output is fed back.  [default: as trained]")
    ] = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    backend: BackendName = "auto",
    memory: Memory = False,
    cpu_only: CpuOnly = False,
    calibration: CalibrationFile = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Time the folding of one protein: in float, by simulation, and on integers; and how far these are apart.

    Example: `protquant bench fold -m demo --threads 2`
    """
    check_output(output)
    announce(f"loading {model}")
    report = benches.bench_fold(
        model,
        _quants(quant),
        fasta=fasta,
        num_recycles=num_recycles,
        rounds=rounds,
        threads=threads,
        backend=backend,
        memory=memory,
        device=running.pick_device(cpu_only),
        calibration=calibration,
    )
    _show(report, output, as_json)


@command("agreement", bench)
def agreement_command(
    model: Model = "demo",
    quant: Quants = None,
    structures: Structures = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many structures.")] = None,
    num_recycles: Annotated[
        int | None, typer.Option(help="Times the output is fed back.  [default: as trained]")
    ] = None,
    backend: BackendName = "auto",
    cpu_only: CpuOnly = False,
    calibration: CalibrationFile = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table of all chains, .csv or .parquet.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fold many chains in float, by simulation and on integers: how far these are from each other.

    Example: `protquant bench agreement -q w8a8-int8 -q w4a8-int4 --num-recycles 0 -o agreement.csv`
    """
    if output is not None:
        check_table(output)
    announce(f"loading {model}")
    table = benches.measure_agreement(
        model,
        _quants(quant),
        structures=structures,
        limit=limit,
        num_recycles=num_recycles,
        backend=backend,
        device=running.pick_device(cpu_only),
        calibration=calibration,
    )
    rows, chains = benches.summarize_agreement(table), cast("list[dict[str, Any]]", table.to_dict("records"))
    if output is not None:
        files.write_table(chains, output)
    if as_json:
        print_json({"summary": rows, "chains": chains})
        return
    print_table(rows, list(rows[0]), f"{model}: C-alpha RMSD in angstrom (median), TM-score (mean and least)")
    for recipe, support in table.groupby("recipe", sort=False)["support"].first().items():
        typer.echo(f"{recipe}: {support}")


def _quants(asked: list[str] | None) -> list[str]:
    return list(_DEFAULT_QUANTS) if asked is None else [name for name in asked if name != "none"]


def check_output(output: Path | None) -> None:
    """Refuse before the work what would be refused after it."""
    if output is None:
        return
    if output.suffix.lower() != ".json":
        raise ProtquantError(f"{output}: raw times are JSON; name a file that ends in .json")
    if output.is_dir():
        raise ProtquantError(f"{output}: this is a folder; name a file in it, such as {output / 'bench.json'}")
    prepare_folder(output.parent)


def _show(report: "benches.BenchReport", output: Path | None, as_json: bool) -> None:
    """Print, write, and exit with 1 where a candidate failed."""
    if as_json:
        print_json(report.to_dict())
    else:
        for section in report.sections:
            print_table(section.rows(), section.columns, section.title)
        for line in report.lines():
            typer.echo(line)
    if output is not None:
        report.write(output)
    for result in report.failed:
        typer.echo(f"{result.name} failed: {result.error}", err=True)
    if report.failed:
        raise typer.Exit(SOME_FAILED)
