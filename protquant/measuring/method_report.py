"""Reports on methods: one Markdown table per setting, and a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protquant.measuring.method_grid import Part
from protquant.measuring.methods import FLOAT_METHOD, SCORES, MethodTable

__all__ = ["method_figure", "methods_markdown", "setting_tables"]

_HEADINGS = {
    "long P@L": "long P@L",
    "contact_drift": "contact drift",
    "masked_accuracy": "masked acc.",
    "pseudo_perplexity": "pseudo-ppl.",
    "logit_kl": "KL",
    "tm_score": "TM",
    "lddt_ca": "lDDT",
    "tm_to_float": "TM to float",
    "lddt_drift": "lDDT drift",
}
_DIGITS = {"contact_drift": 5, "pseudo_perplexity": 3, "weight_bits": 2, "activation_bits": 2}
_PANELS: dict[Part, tuple[tuple[str, str], ...]] = {
    "language": (("long P@L", "linear"), ("contact_drift", "log")),
    "folding": (("tm_score", "linear"), ("lddt_drift", "log")),
}


def setting_tables(table: MethodTable) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the table of each setting, as text by heading; the float model is the first row."""
    parts: list[Part] = [part for part in SCORES if any(row["part"] == part for row in table.rows)]
    rows = {(row["part"], row["method"], row["setting"]): row for row in table.rows}
    tables: dict[str, list[dict[str, str]]] = {}
    for setting in table.grid.settings:
        methods = [name for name in table.grid.methods if any((part, name, setting) in rows for part in parts)]
        if not methods:
            continue
        tables[setting] = [
            _line("float", parts, {part: rows.get((part, FLOAT_METHOD, FLOAT_METHOD)) for part in parts})
        ]
        for name in methods:
            cells = {part: rows.get((part, name, setting)) for part in parts}
            tables[setting].append(_line(table.grid.methods[name].title, parts, cells))
    return tables


def _line(title: str, parts: Sequence[Part], cells: Mapping[Part, dict[str, Any] | None]) -> dict[str, str]:
    line = {"method": title}
    for part in parts:
        row = cells[part] or {}
        status = row.get("status")
        prefix = "" if part == "language" or len(parts) == 1 else "fold "
        for score in SCORES[part]:
            line[_HEADINGS[score]] = status if status in ("failed", "not available") else _number(score, row.get(score))
        line[f"{prefix}W bits"] = _number("weight_bits", row.get("weight_bits"))
        line[f"{prefix}A bits"] = _number("activation_bits", row.get("activation_bits"))
        if status == "partial":
            line["method"] = f"{title} *"
    return line


def _number(name: str, value: Any) -> str:
    return "-" if value is None else f"{float(value):.{_DIGITS.get(name, 4)}f}"


def methods_markdown(table: MethodTable, command: str) -> str:
    """Return the whole table as a Markdown page.

    Parameters
    ----------
    command : str
        The shell command that made the table.
    """
    lines = ["# Methods side by side", "", "```sh", command, "```", ""]
    lines += ["; ".join(f"{name} {value}" for name, value in table.facts.items()) + ".", ""]
    lines += [f"- {_escape(note)}" for note in table.notes]
    for setting, rows in setting_tables(table).items():
        lines += ["", f"## {setting}", ""]
        headings = list(rows[0])
        lines += [_row(headings), _row(["---", *["---:"] * (len(headings) - 1)])]
        lines += [_row([row.get(heading, "-") for heading in headings]) for row in rows]
    if table.failures:
        lines += ["", "## Not complete", ""]
        if any(row["status"] == "partial" for row in table.failures):
            lines += ["Rows with a star are means over the targets that did not fail.", ""]
        lines += [
            f"- {row['method']} at {row['setting']} ({row['part']}), {row['status']}: {_escape(str(row.get('error')))}"
            for row in table.failures
        ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def method_figure(table: MethodTable) -> Figure:
    """Return a figure with a panel for each score and setting, and a row for each method; float is a dashed line.

    Settings with a single method are left out: there is nothing to compare.
    """
    parts: list[Part] = [part for part in SCORES if any(row["part"] == part for row in table.rows)]
    measured = [row for row in table.rows if row["method"] != FLOAT_METHOD and row.get("weight_bits") is not None]
    settings = [
        name for name in table.grid.settings if len({row["method"] for row in measured if row["setting"] == name}) > 1
    ] or [name for name in table.grid.settings if any(row["setting"] == name for row in measured)]
    methods = [name for name in table.grid.methods if any(row["method"] == name for row in measured)]
    panels = [(part, score, scale) for part in parts for score, scale in _PANELS[part]]
    size = (3.2 + 1.7 * len(settings), (1.0 + 0.19 * len(methods)) * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), max(len(settings), 1), squeeze=False, sharex="row", sharey=True)
    for line, (part, score, scale) in zip(axes, panels, strict=True):
        rows = [row for row in table.rows if row["part"] == part]
        baseline = next((row.get(score) for row in rows if row["method"] == FLOAT_METHOD), None)
        for axis, setting in zip(line, settings, strict=False):
            found = {row["method"]: row.get(score) for row in rows if row["setting"] == setting}
            _panel(axis, [found.get(name) for name in methods], baseline if scale == "linear" else None, scale)
            axis.set_title(setting if axis is not line[0] else f"{Path(rows[0]['model']).name}\n{setting}", fontsize=9)
            axis.set_xlabel(_HEADINGS[score], fontsize=8)
        line[0].set_yticks(range(len(methods)), [table.grid.methods[name].title for name in methods], fontsize=7)
        line[0].set_ylim(len(methods) - 0.5, -0.5)
    return figure


def _panel(axis: Axes, values: Sequence[float | None], baseline: float | None, scale: str) -> None:
    if baseline is not None:
        axis.axvline(baseline, color="black", lw=0.8, ls="--")
    shown = [(number, value) for number, value in enumerate(values) if value is not None]
    if shown:
        best = (max if baseline is not None else min)(value for _, value in shown)
        colors = ["tab:red" if value == best else "tab:blue" for _, value in shown]
        axis.scatter([value for _, value in shown], [number for number, _ in shown], s=18, c=colors, zorder=3)
    if scale == "log" and any(value > 0 for _, value in shown):
        axis.set_xscale("log")
    axis.grid(axis="both", lw=0.3, color="0.85")
    axis.tick_params(labelsize=7)
