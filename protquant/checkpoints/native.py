"""protquant's own layout: a folder with `model.safetensors` in our names and a `config.json` that vouches for both.

`config.json` holds the sizes, the SHA-256 of the weights file, the model's fingerprint, and a SHA-256 over itself,
so that a damaged or edited folder is refused rather than run.
"""

import hashlib
import json
import os
import secrets
import shutil
import typing
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file

from protquant.checkpoints.assemble import assemble, fingerprint
from protquant.checkpoints.weight_files import read_safetensors
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config, ESMFold, ESMFoldConfig

__all__ = ["is_native", "load_native", "save_model"]

_FORMAT, _VERSION = "protquant", 1
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_Config = TypeVar("_Config")


def save_model(
    model: ESM2 | ESMFold,
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> Path:
    """Save a model; the folder appears whole or not at all.

    Parameters
    ----------
    folder : str or PathLike
        New, or empty, unless `overwrite`.
    dtype : torch.dtype
        What the weights are stored as: float32, float16 or bfloat16. They are loaded as float32.
    overwrite : bool
        Replace the checkpoint that is in the folder; never one that holds anything else.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ProtquantError
        If the folder holds something, or cannot be written; if a weight overflows `dtype`.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise ProtquantError(f"{folder}: already exists and is not empty; name another folder or ask to overwrite it.")
    if folder.is_dir() and (strangers := sorted({path.name for path in folder.iterdir()} - {_CONFIG, _WEIGHTS})):
        raise ProtquantError(
            f"{folder}: not overwritten, for it holds what is no part of a checkpoint ({', '.join(strangers[:3])});"
            " name another folder."
        )
    state = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    if lost := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ProtquantError(
            f"{folder}: not saved, {lost[0]} has values that are not finite in {dtype}; save the model in another type."
        )
    token = secrets.token_hex(8)
    temporary, replaced = folder.parent / f".protquant-{token}.tmp", folder.parent / f".protquant-{token}.old"
    try:
        temporary.mkdir(parents=True)
        save_file(state, temporary / _WEIGHTS, metadata={"format": "pt"})
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "kind": "esmfold" if isinstance(model, ESMFold) else "esm2",
            "config": asdict(model.config),
            "dtype": str(dtype).removeprefix("torch."),
            "fingerprint": fingerprint(model.config, state),
            "weights": {"file": _WEIGHTS, "sha256": _file_hash(temporary / _WEIGHTS)},
        }
        content["sha256"] = _content_hash(content)
        (temporary / _CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        # safetensors makes files that their owner alone may read, whatever the umask says.
        (temporary / _WEIGHTS).chmod((temporary / _CONFIG).stat().st_mode)
        for path in temporary.iterdir():
            _flush(path)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    except OSError as error:
        raise ProtquantError(
            f"{folder}: the checkpoint cannot be written ({error.strerror or type(error).__name__}). Name another"
            " folder, or check its permissions and the room on the disk."
        ) from error
    finally:
        if replaced.exists() and not folder.exists():  # interrupted between the two renames
            replaced.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return folder


def is_native(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder's `config.json` claims to be of this layout."""
    try:
        content = json.loads((Path(folder) / _CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


def load_native(folder: str | os.PathLike[str]) -> ESM2 | ESMFold:
    """Load what `save_model` wrote, in float32 on the CPU.

    Raises
    ------
    ProtquantError
        If a file is missing, or differs in a single bit from what was saved.
    """
    folder = Path(folder)
    path = folder / _CONFIG
    try:
        content = json.loads(path.read_bytes())
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
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise ProtquantError(f"{weights}: no such file; copy or import the checkpoint again.")
    if _file_hash(weights) != content["weights"]["sha256"]:
        raise ProtquantError(
            f"{weights}: differs from what was saved (its SHA-256 is not the one in {_CONFIG}): truncated, damaged or"
            " replaced. Copy or import the checkpoint again."
        )
    state = read_safetensors(weights)
    model: ESM2 | ESMFold
    if content["kind"] == "esmfold":
        folding = _from_json(ESMFoldConfig, content["config"])
        model = assemble(lambda: ESMFold(folding), state, str(folder), known_fingerprint=content["fingerprint"])
    else:
        encoder = _from_json(ESM2Config, content["config"])
        model = assemble(lambda: ESM2(encoder), state, str(folder), known_fingerprint=content["fingerprint"])
    return model


def _from_json(kind: type[_Config], values: Mapping[str, Any]) -> _Config:
    """A configuration from the plain values that `asdict` and JSON made of it."""
    hints = typing.get_type_hints(kind)

    def plain_to_typed(name: str, value: Any) -> Any:
        hint = hints.get(name)
        if isinstance(hint, type) and is_dataclass(hint):
            return _from_json(hint, value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: plain_to_typed(name, value) for name, value in values.items()})


def _content_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
