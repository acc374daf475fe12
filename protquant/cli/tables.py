"""Tables and JSON documents on standard output."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from protquant.errors import ProtquantError
from protquant.files import json_value, prepare_folder

__all__ = ["check_table", "print_json", "print_table"]

# The console is wider than any table: otherwise rich would cut columns at 80 characters in a pipe. Markup is off,
# because paths may contain brackets and colons.
console = Console(width=10_000, markup=False, emoji=False)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(json_value(document), indent=1))


def print_table(rows: Sequence[Mapping[Any, Any]], columns: list[str], title: str = "") -> None:
    """Print the `columns` of `rows`, with headings for people."""
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
    "iptm": "ipTM",
    "ca_outliers": "CA-CA off",
    "clashes": "clashes/1000",
    "plddt_error": "pLDDT error",
    "tm_to_float": "TM to float",
    "lddt_drift": "lDDT drift",
    "masked_accuracy": "masked accuracy",
    "pseudo_perplexity": "pseudo-perplexity",
    "logit_kl": "KL",
    "weight_bits": "W bits",
    "activation_bits": "A bits",
    "weight_bytes": "weight MB",
    "peak_bytes": "peak MB",
    "times_as_fast": "x as fast",
    "contact_drift": "drift",
    "snr_db": "SNR (dB)",
}


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"
    return str(value)


def check_table(output: Path) -> None:
    """Refuse an unusable table file before the work begins."""
    if not output.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        raise ProtquantError(f"{output}: a table ends in .csv, .csv.gz or .parquet")
    if output.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise ProtquantError(f"{output}: Parquet needs pyarrow; pip install 'protquant[parquet]', or name a .csv file")
    if output.is_dir():
        raise ProtquantError(f"{output}: this is a folder; name a file in it, such as {output / 'table.csv'}")
    prepare_folder(output.parent)
