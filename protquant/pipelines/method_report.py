"""The table of methods for people: one table per setting as Markdown, and a picture of accuracy against bits."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from protquant.pipelines.method_grid import Part
from protquant.pipelines.methods import FLOAT_METHOD, SCORES, MethodTable

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
_MARKERS = "osD^vP*X"
_PANELS: dict[Part, tuple[tuple[str, str], ...]] = {
    "language": (("long P@L", "linear"), ("contact_drift", "log")),
    "folding": (("tm_score", "linear"), ("lddt_drift", "log")),
}


def setting_tables(table: MethodTable) -> dict[str, list[dict[str, str]]]:
    """Of each setting the rows of its table, cells as text by heading; the float model is the first row of each."""
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
    """The whole table as a Markdown page.

    Parameters
    ----------
    command : str
        What made it, as typed in a shell.
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
    """Scores against effective bits of weights, a point per cell: color by method, shape by setting."""
    parts: list[Part] = [part for part in SCORES if any(row["part"] == part for row in table.rows)]
    figure = Figure(figsize=(11, 4.2 * len(parts)), layout="constrained")
    axes = figure.subplots(len(parts), 2, squeeze=False)
    colors = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]  # that of a list of colors has them
    color = {name: colors[i % len(colors)] for i, name in enumerate(table.grid.methods)}
    marker = {name: _MARKERS[i % len(_MARKERS)] for i, name in enumerate(table.grid.settings)}
    for part, pair in zip(parts, axes, strict=True):
        rows = [row for row in table.rows if row["part"] == part and row.get("weight_bits") is not None]
        for axis, (score, scale) in zip(pair, _PANELS[part], strict=True):
            _panel(axis, rows, score, scale)
            for row in rows:
                if row["method"] != FLOAT_METHOD and row.get(score) is not None:
                    style = {"marker": marker[row["setting"]], "color": color[row["method"]], "mec": "black"}
                    axis.plot(row["weight_bits"], row[score], ls="", mew=0.4, ms=7, **style)
    methods = [
        Line2D([], [], marker="s", color=color[name], ls="", label=method.title)
        for name, method in table.grid.methods.items()
        if any(row["method"] == name for row in table.rows)
    ]
    settings = [
        Line2D([], [], marker=marker[name], color="gray", ls="", label=name)
        for name in table.grid.settings
        if any(row["setting"] == name for row in table.rows)
    ]
    figure.legend(handles=[*methods, *settings], loc="outside right upper", fontsize=7)
    return figure


def _panel(axis: Axes, rows: Sequence[dict[str, Any]], score: str, scale: str) -> None:
    baseline = next((row.get(score) for row in rows if row["method"] == FLOAT_METHOD), None)
    if baseline is not None and scale == "linear":
        axis.axhline(baseline, color="black", lw=0.8, ls="--", label="float")
    if any((row.get(score) or 0) > 0 for row in rows):
        axis.set_yscale(scale)
    axis.set(xlabel="effective bits of a weight", ylabel=_HEADINGS[score])
    axis.set_title(f"{rows[0]['model']}: {_HEADINGS[score]}" if rows else "", fontsize=9)
