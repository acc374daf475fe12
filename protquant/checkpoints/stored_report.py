"""The report on a quantized model as plain data: one column per field, with repeated values stored once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from protquant.files.plain_data import typed
from protquant.quant import Recipe, Report, SiteReport

__all__ = ["report_from_json", "report_to_json"]

_NUMBERS = ("bits", "effective_bits", "snr_db", "snr_after_norm_db", "clipped")


def report_to_json(report: Report) -> dict[str, Any]:
    """Return plain data for `report_from_json`, without the recipe."""
    columns = {f.name: [_to_plain(getattr(site, f.name)) for site in report.sites] for f in fields(SiteReport)}
    return {
        "weight_bytes": report.weight_bytes,
        "float_weight_bytes": report.float_weight_bytes,
        "sites": {name: _shorten(values) for name, values in columns.items()},
    }


def report_from_json(recipe: Recipe, content: Mapping[str, Any]) -> Report:
    """Return the report that `report_to_json` converted.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, IndexError
        If the content is not such a report.
    """
    columns = {name: _lengthen(values) for name, values in content["sites"].items()}
    for name in _NUMBERS:
        columns[name] = [float(value) if isinstance(value, str) else value for value in columns[name]]
    sites = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    weight_bytes, float_weight_bytes = typed(list[int], [content["weight_bytes"], content["float_weight_bytes"]])
    typed(list[SiteReport], sites)  # only a check: the original values are used, so that integers stay integers
    report = Report(recipe, [SiteReport(**site) for site in sites], weight_bytes, float_weight_bytes)
    str(report)  # raises the errors of inconsistent sites here, not when the report is printed
    return report


def _to_plain(value: Any) -> Any:
    # JSON cannot represent infinity.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _shorten(values: Sequence[Any]) -> Any:
    # Keys include the type, because 1, 1.0 and True are equal.
    distinct = list(dict.fromkeys((type(value), value) for value in values))
    if 4 * len(distinct) > len(values):
        return list(values)
    index = {key: number for number, key in enumerate(distinct)}
    return {"distinct": [value for _, value in distinct], "index": [index[type(value), value] for value in values]}


def _lengthen(values: Any) -> list[Any]:
    if isinstance(values, Mapping):
        return [values["distinct"][number] for number in values["index"]]
    return list(values)
