"""protquant's own layout: a folder with `model.safetensors`, in protquant's names, and `config.json`.

`config.json` has the sizes, the SHA-256 of the weights file, the model's fingerprint, and its own SHA-256, so that a
damaged or edited folder is refused.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from protquant.checkpoints.assemble import fingerprint
from protquant.checkpoints.float_checkpoint import FloatCheckpoint
from protquant.checkpoints.folders import CONFIG, WEIGHTS, file_hash, new_folder
from protquant.checkpoints.sizes import read_sizes, sizes_of
from protquant.checkpoints.weight_files import read_safetensors
from protquant.errors import ProtquantError
from protquant.files.plain_data import parse_json, typed
from protquant.models import ProteinModel
from protquant.models.registry import empty_model

__all__ = ["is_native", "load_native", "open_native", "save_model"]

_FORMAT, _VERSION = "protquant", 1


@dataclass(frozen=True)
class _File:
    file: str
    sha256: str


@dataclass(frozen=True)
class _Content:
    """Content of `config.json`, without its own hash."""

    format: str
    version: int
    kind: str
    config: dict[str, Any]
    dtype: str
    fingerprint: str
    weights: _File


def save_model(
    model: ProteinModel,
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> Path:
    """Save a model; the folder is written atomically.

    Parameters
    ----------
    folder : str or PathLike
        Folder to write, new or empty unless `overwrite`.
    dtype : torch.dtype
        Type of the stored weights: float32, float16 or bfloat16. They are loaded as float32.
    overwrite : bool
        Replace the checkpoint in the folder. A folder with other files is never replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ProtquantError
        If the folder is not empty or cannot be written, or if a weight overflows `dtype`.
    """
    folder = Path(folder)
    state = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    if lost := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ProtquantError(
            f"{folder}: not saved, {lost[0]} has values that are not finite in {dtype}; save the model in another type."
        )
    with new_folder(folder, overwrite) as temporary:
        save_file(state, temporary / WEIGHTS, metadata={"format": "pt"})
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            **sizes_of(model),
            "dtype": str(dtype).removeprefix("torch."),
            "fingerprint": fingerprint(model.config, state),
            "weights": {"file": WEIGHTS, "sha256": file_hash(temporary / WEIGHTS)},
        }
        content["sha256"] = _content_hash(content)
        (temporary / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return folder


def is_native(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder's `config.json` names this layout."""
    try:
        content = parse_json((Path(folder) / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


def load_native(folder: str | os.PathLike[str]) -> ProteinModel:
    """Load a model that `save_model` wrote, in float32 on the CPU; errors are those of `open_native`."""
    return open_native(folder).load()


def open_native(folder: str | os.PathLike[str]) -> FloatCheckpoint:
    """Open a checkpoint that `save_model` wrote; its weights are hashed and mapped, not loaded.

    Raises
    ------
    ProtquantError
        If a file is missing, or was changed after it was saved.
    """
    folder = Path(folder)
    path = folder / CONFIG
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ProtquantError(f"{path}: cannot be read ({error}); copy or import the checkpoint again.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ProtquantError(f"{path}: not the configuration of a protquant checkpoint.")
    if content.get("version") != _VERSION:
        raise ProtquantError(
            f"{path}: layout version {content.get('version')!r}; this protquant reads version {_VERSION}. Install a"
            " newer one, or import the checkpoint again."
        )
    if content.pop("sha256", None) != _content_hash(content):
        raise ProtquantError(f"{path}: differs from what was saved; copy or import the checkpoint again.")
    try:
        stored = typed(_Content, content)
        sizes = read_sizes(stored.kind, stored.config)
    except ValueError as error:
        raise ProtquantError(f"{path}: not as this protquant writes it ({error}); import the model again.") from error
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ProtquantError(f"{weights}: no such file; copy or import the checkpoint again.")
    if file_hash(weights) != stored.weights.sha256:
        raise ProtquantError(
            f"{weights}: differs from what was saved (its SHA-256 is not the one in {CONFIG}): truncated, damaged or"
            " replaced. Copy or import the checkpoint again."
        )
    state = read_safetensors(weights)
    return FloatCheckpoint(
        lambda: empty_model(sizes),
        state,
        str(folder),
        known_fingerprint=stored.fingerprint,
        files=(path, weights),
    )


def _content_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
