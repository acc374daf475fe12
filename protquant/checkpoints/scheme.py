"""`scheme.json`: the description of a quantized checkpoint, besides its tensors.

The first line of the JSON is the SHA-256 of all bytes after it, so that a damaged or edited file is refused. The
entries are, in this order:

============  =====================================================================================================
`format`      `protquant-quantized`
`version`     version of this layout
`versions`    versions of protquant and torch that wrote the file
`kind`        `esm2` or `esmfold`
`config`      sizes of the model
`float`       `source` and `fingerprint` of the float model
`recipe`      result of `protquant.quant.Recipe.to_dict`
`report`      report on every site, see `protquant.checkpoints.stored_report`
`weights`     name and SHA-256 of each file of tensors: one for each block, one for all layers outside of blocks
`frozen`      parameters with `requires_grad=False` (decoded weights are not listed)
`modules`     one line for each module that quantization put into the model, by its path: class, settings, tensors and
              children, see `protquant.checkpoints.stored_modules` and `protquant.checkpoints.stored_tensors`
============  =====================================================================================================
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from protquant.checkpoints.folders import SCHEME
from protquant.checkpoints.stored_report import report_from_json, report_to_json
from protquant.errors import ProtquantError
from protquant.files.plain_data import parse_json
from protquant.quant import Recipe, Report

__all__ = ["Scheme", "read_scheme", "write_scheme"]

_FORMAT, _VERSION = "protquant-quantized", 2
_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})",\n')


@dataclass(frozen=True)
class Scheme:
    """Content of `scheme.json`.

    Attributes
    ----------
    sizes : dict
        `kind` and `config` of the model.
    source, float_fingerprint : str
        Path or name, and fingerprint, of the float model.
    report : Report
        Report on every site, with the recipe.
    modules : dict
        Descriptions of modules by path in the model, see `protquant.checkpoints.stored_modules`.
    weights : dict
        SHA-256 of each file of tensors, by name.
    frozen : list of str
        Parameters with `requires_grad=False`. This affects results: torch sums products with them in another order,
        which changes the last bit.
    fingerprint : str
        SHA-256 of the content.
    """

    sizes: dict[str, Any]
    source: str
    float_fingerprint: str
    report: Report
    modules: dict[str, dict[str, Any]]
    weights: dict[str, str]
    frozen: list[str]
    fingerprint: str = ""


def write_scheme(scheme: Scheme, path: Path) -> None:
    """Write `scheme.json`, with a new fingerprint."""
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "versions": {"protquant": version("protquant"), "torch": torch.__version__},
        **scheme.sizes,
        "float": {"source": scheme.source, "fingerprint": scheme.float_fingerprint},
        "recipe": scheme.report.recipe.to_dict(),
        "report": report_to_json(scheme.report),
        "weights": scheme.weights,
        "frozen": scheme.frozen,
    }
    entries = [f"{_compact(name)}: {_compact(value)}" for name, value in content.items()]
    modules = ",\n".join(f"{_compact(name)}: {_compact(node)}" for name, node in scheme.modules.items())
    body = ",\n".join([*entries, f'"modules": {{\n{modules}\n}}']).encode() + b"\n}\n"
    digest = hashlib.sha256(body).hexdigest()
    path.write_bytes(f'{{"sha256": "{digest}",\n'.encode() + body)


def read_scheme(folder: Path) -> Scheme:
    """Read and check the `scheme.json` of a folder.

    Raises
    ------
    ProtquantError
        If the file is missing, was changed after it was saved, has a newer layout, or names formats, steps or settings
        that are unknown.
    """
    path = folder / SCHEME
    remedy = "Copy the checkpoint again, or quantize the float model again."
    try:
        raw = path.read_bytes()
        content = parse_json(raw)
    except (OSError, ValueError) as error:
        raise ProtquantError(f"{path}: cannot be read ({error}). {remedy}") from error
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise ProtquantError(f"{path}: not the scheme of a quantized checkpoint of protquant. {remedy}")
    if content.get("version") != _VERSION:
        raise ProtquantError(
            f"{path}: layout version {content.get('version')!r}; this protquant reads version {_VERSION}. Install a"
            " newer one, or quantize the float model again."
        )
    head = _HEAD.match(raw)
    if head is None or head[1].decode() != hashlib.sha256(raw[head.end() :]).hexdigest():
        raise ProtquantError(f"{path}: differs from what was saved: damaged or edited. {remedy}")
    try:
        return Scheme(
            {"kind": content["kind"], "config": content["config"]},
            content["float"]["source"],
            content["float"]["fingerprint"],
            report_from_json(Recipe.from_dict(content["recipe"]), content["report"]),
            dict(content["modules"]),
            {str(name): str(digest) for name, digest in content["weights"].items()},
            list(content["frozen"]),
            head[1].decode(),
        )
    except ProtquantError as error:
        raise ProtquantError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ProtquantError(f"{path}: not as this protquant writes it ({type(error).__name__}: {error})") from error


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
