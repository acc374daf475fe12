"""The `protquant` command: code that all subcommands share."""

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
from typer.core import TyperGroup

from protquant.errors import ProtquantError
from protquant.options import Option
from protquant.reporting.event_log import event_log, log_event
from protquant.reporting.progress import alive

__all__ = ["BAD_INPUT", "PANELS", "SOME_FAILED", "Json", "announce", "app", "main", "tells_errors"]

BAD_INPUT = 2
SOME_FAILED = 1

PANELS = {
    "Predict": ("demo", "fold", "contacts", "merge", "plan"),
    "Measure": ("score", "evaluate", "methods", "sensitivity", "auto", "ranges"),
    "Models and recipes": ("inspect", "quantize", "import", "recipes", "formats"),
    "This machine": ("bench", "kernels", "cache"),
}
"""Commands by the title of their panel in `--help`, in the order in which people need them."""


class _InOrder(TyperGroup):
    """Lists commands in the order of `PANELS`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return [name for names in PANELS.values() for name in names]


app = typer.Typer(
    name="protquant",
    cls=_InOrder,
    help="Fold proteins with a quantized ESMFold, and measure what quantization costs.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, Option("Print one JSON document on standard output.", ("--json",))]
_Log = Annotated[
    Path | None,
    typer.Option(
        help="File to which events are appended, as JSON lines.  [default: the environment's `PROTQUANT_LOG`, or none]",
        metavar="FILE.jsonl",
    ),
]


def tells_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print errors that the user can fix without a traceback, and exit with code 2."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ProtquantError as error:
            typer.echo(f"protquant: {error}", err=True)
            log_event("error", "error", text=str(error))
            raise typer.Exit(BAD_INPUT) from error

    return wrapped


def speaks_to_people(command: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Add progress messages to a command, and an option `--log` that writes its events to a file.

    Errors are printed as in `tells_errors`. If a command prints nothing for ten seconds, a line says what it is doing.
    """

    @tells_errors
    @wraps(command)
    def wrapped(*args: Any, log: Path | None = None, **kwargs: Any) -> Any:
        # The error is printed while the log is open, so that it is the last event there.
        with _logging(log, name, kwargs), alive(name):
            return tells_errors(command)(*args, **kwargs)

    # Typer reads options from here.
    signature = inspect.signature(command)
    option = inspect.Parameter("log", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Log)
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**command.__annotations__, "log": _Log}
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
    """Print the first step of a command on standard error, because the import of torch alone takes seconds."""
    typer.echo(f"protquant: {what}", err=True)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    app()
