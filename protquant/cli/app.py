"""The `protquant` command: what all subcommands share."""

import inspect
import logging
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from protquant.errors import ProtquantError
from protquant.reporting.event_log import event_log, log_event
from protquant.reporting.progress import alive

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
    "tells_errors",
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


Log = Annotated[
    Path | None,
    typer.Option(
        help="File to append what happens to, as JSON lines.  [default: the environment's `PROTQUANT_LOG`, or none]",
        metavar="FILE.jsonl",
    ),
]


def tells_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print errors that are the user's to mend, without a traceback, and exit with 2."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ProtquantError as error:
            typer.echo(f"protquant: {error}", err=True)
            log_event("error", "error", text=str(error))
            raise typer.Exit(BAD_INPUT) from error

    return wrapped


def speaks_to_people(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command speak to people, and to a log if one is asked for by its further option `--log`.

    Errors are told as by `tells_errors`. Where a command tells nothing for ten seconds, a line says what it is at.
    """
    told = tells_errors(command)

    @tells_errors
    @wraps(command)
    def wrapped(*args: Any, log: Path | None = None, **kwargs: Any) -> Any:
        name = command.__name__.removesuffix("_command").replace("_", "-")
        with _logging(log, name, kwargs), alive(name):
            return told(*args, **kwargs)

    # Typer reads options from here.
    signature = inspect.signature(command)
    option = inspect.Parameter("log", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Log)
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**command.__annotations__, "log": Log}
    return wrapped


def _logging(log: Path | None, command: str, arguments: dict[str, Any]) -> AbstractContextManager[None]:
    path = log or os.environ.get("PROTQUANT_LOG")
    if not path:
        return nullcontext()
    return event_log(
        Path(path),
        command=command,
        version=version("protquant"),
        python=platform.python_version(),
        machine={"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()},
        process=os.getpid(),
        arguments={name: value for name, value in arguments.items() if value is not None},
    )


def announce(what: str) -> None:
    """Say on standard error what a command begins with: importing torch alone takes seconds."""
    typer.echo(f"protquant: {what}", err=True)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    app()
