"""The `protquant` command: what all subcommands share."""

import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from protquant.errors import ProtquantError

__all__ = [
    "BAD_INPUT",
    "JSON",
    "SOME_FAILED",
    "Backend",
    "Cache",
    "CalibrationFile",
    "ChunkSize",
    "CpuOnly",
    "Dtype",
    "Execution",
    "MaxMemory",
    "Model",
    "NumRecycles",
    "Plots",
    "Quant",
    "Structures",
    "TokensPerBatch",
    "announce",
    "app",
    "main",
    "speaks_to_people",
]

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
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Model = Annotated[
    str,
    typer.Option(
        "-m", "--model", help="`demo`, a released name such as `esmfold_v1`, a folder, a `.pt` file, or a hub name."
    ),
]
Quant = Annotated[str, typer.Option("-q", "--quant", help="Recipe: a name of `protquant recipes`, or a YAML file.")]
Execution = Annotated[
    str | None,
    typer.Option(
        help="What quantized models run as: `simulate` in float, or `integer` on codes.  [default: the recipe's]"
    ),
]
Backend = Annotated[
    str, typer.Option(help="Whose kernels multiply integers: `auto` (by device), `reference`, `cpu` or `triton`.")
]
NumRecycles = Annotated[int | None, typer.Option(help="Times the output is fed back.  [default: as trained]")]
TokensPerBatch = Annotated[int, typer.Option(help="Residues folded together; 0 is one by one.")]
ChunkSize = Annotated[int | None, typer.Option(help="Rows of the pair at a time, in float.  [default: what fits]")]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        help="What the whole process may take, such as `12GiB`; on a GPU, its tensors there.  [default: what is free]",
        metavar="AMOUNT",
    ),
]
CpuOnly = Annotated[bool, typer.Option("--cpu-only", help="Do not use a GPU.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
Cache = Annotated[
    bool,
    typer.Option(help="Keep the quantized model in the cache folder, and load it from there; else quantize in memory."),
]
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


def announce(what: str) -> None:
    """Say on standard error what a command begins with: importing torch alone takes seconds."""
    typer.echo(f"protquant: {what}", err=True)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    app()
