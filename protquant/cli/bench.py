"""The commands `bench ops`, `bench trunk`, `bench lm`, `bench fold` and `bench agreement`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from protquant import bench as benches
from protquant import files, running
from protquant.bench.choices import WORKLOADS
from protquant.bench.options import AgreementOptions, FoldBenchOptions, LmOptions, OpsOptions, TrunkOptions
from protquant.cli.app import PANELS, SOME_FAILED, Json, announce, app
from protquant.cli.commands import command
from protquant.cli.tables import check_table, print_json, print_table
from protquant.errors import ProtquantError
from protquant.files import prepare_folder
from protquant.options import CpuOnly, Option

bench = typer.Typer(
    name="bench",
    help="Time our execution beside other implementations, in alternation, each in a process of its own: medians of "
    "ratios, peak memory, raw times. `agreement` compares the results of integers and floats.",
    no_args_is_help=True,
)
app.add_typer(bench, rich_help_panel=list(PANELS)[-1])

_QUANTS = ("w8a8-int8",)
_BOTH = "both"
Output = Annotated[Path | None, Option("JSON file for the times of every round and the facts of the machine.", ("-o",))]


@command("ops", bench)
def ops(options: OpsOptions, cpu_only: CpuOnly = False, output: Output = None, as_json: Json = False) -> None:
    """Time one linear layer: float32, bfloat16, torch's int8 product alone, and our layers.

    Example: `protquant bench ops --shape pair --threads 2`
    """
    check_output(output)
    announce("loading the kernels")
    _show(benches.bench_ops(**vars(options) | _device(cpu_only)), output, as_json)


@command("trunk", bench, quants=_QUANTS)
def trunk(options: TrunkOptions, cpu_only: CpuOnly = False, output: Output = None, as_json: Json = False) -> None:
    """Time blocks of ESMFold's trunk beside transformers, with the same random weights.

    Example: `protquant bench trunk --preset esmfold_v1 --length 256 --threads 2 --memory -o trunk.json`
    """
    check_output(output)
    announce(f"making a trunk of the size {options.preset}")
    _show(benches.bench_trunk(**_asked(options) | _device(cpu_only)), output, as_json)


@command("lm", bench, quants=_QUANTS)
def lm(options: LmOptions, cpu_only: CpuOnly = False, output: Output = None, as_json: Json = False) -> None:
    """Time the logits of ESM-2 beside transformers and other implementations, with the same random weights.

    Example: `protquant bench lm --preset esm2_t30_150M --workload ragged --threads 2`
    """
    check_output(output)
    if unknown := [name for name in options.workloads if name not in (*WORKLOADS, _BOTH)]:
        raise ProtquantError(f"--workload {unknown[0]}: choose one of {', '.join(WORKLOADS)}, {_BOTH}")
    if _BOTH in options.workloads:
        options = replace(options, workloads=tuple(WORKLOADS))
    announce(f"making a language model of the size {options.preset}")
    _show(benches.bench_lm(**_asked(options) | _device(cpu_only)), output, as_json)


@command("fold", bench, quants=_QUANTS)
def fold(options: FoldBenchOptions, cpu_only: CpuOnly = False, output: Output = None, as_json: Json = False) -> None:
    """Time the folding of one protein in float, by simulation, and on integers, and compare the structures.

    Example: `protquant bench fold -m demo --threads 2`
    """
    check_output(output)
    announce(f"loading {options.model}")
    _show(benches.bench_fold(**_asked(options) | _device(cpu_only)), output, as_json)


@command("agreement", bench, quants=_QUANTS)
def agreement(
    options: AgreementOptions,
    cpu_only: CpuOnly = False,
    output: Annotated[Path | None, Option("Table of all chains, .csv or .parquet.", ("-o",))] = None,
    as_json: Json = False,
) -> None:
    """Fold many chains in float, by simulation and on integers, and compare the structures.

    Example: `protquant bench agreement -q w8a8-int8 -q w4a8-int4 --num-recycles 0 -o agreement.csv`
    """
    if output is not None:
        check_table(output)
    announce(f"loading {options.model}")
    table = benches.measure_agreement(**_asked(options) | _device(cpu_only))
    rows, chains = benches.summarize_agreement(table), cast("list[dict[str, Any]]", table.to_dict("records"))
    if output is not None:
        files.write_table(chains, output)
    if as_json:
        print_json({"summary": rows, "chains": chains})
        return
    print_table(rows, list(rows[0]), f"{options.model}: C-alpha RMSD in angstrom (median), TM-score (mean and least)")
    for recipe, support in table.groupby("recipe", sort=False)["support"].first().items():
        typer.echo(f"{recipe}: {support}")


def _asked(options: TrunkOptions | LmOptions | FoldBenchOptions | AgreementOptions) -> dict[str, Any]:
    return vars(options) | {"quants": [name for name in options.quants if name != "none"]}


def _device(cpu_only: bool) -> dict[str, Any]:
    return {"device": running.pick_device(cpu_only)}


def check_output(output: Path | None) -> None:
    """Refuse an unusable output file before the work begins."""
    if output is None:
        return
    if output.suffix.lower() != ".json":
        raise ProtquantError(f"{output}: raw times are JSON; name a file that ends in .json")
    if output.is_dir():
        raise ProtquantError(f"{output}: this is a folder; name a file in it, such as {output / 'bench.json'}")
    prepare_folder(output.parent)


def _show(report: "benches.BenchReport", output: Path | None, as_json: bool) -> None:
    """Print and write the report; exit with code 1 if a candidate failed."""
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
