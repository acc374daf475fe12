"""`protquant --plugin my_method.py ...`: steps and formats of the user's own."""

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from protquant.cli.app import app, tells_errors
from protquant.errors import ProtquantError

__all__ = ["import_plugin"]


def import_plugin(path: Path) -> None:
    """Run a Python file, so that recipes can use the steps and formats that it registers, also in benchmark workers.

    Raises
    ------
    ProtquantError
        If the file does not exist, or fails.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ProtquantError(f"--plugin {path}: no such Python file")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:
        raise ProtquantError(f"--plugin {path}: {type(error).__name__}: {error}") from error
    known = os.environ.get("PROTQUANT_PLUGINS")
    os.environ["PROTQUANT_PLUGINS"] = os.pathsep.join([*filter(None, [known]), str(path.resolve())])


@app.callback()
@tells_errors
def options(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(help="Python file that registers steps or formats of your own. Repeat for several."),
    ] = None,
) -> None:
    """Fold proteins with a quantized ESMFold, and measure what quantization costs."""
    for path in plugin or []:
        import_plugin(path)
