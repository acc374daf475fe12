"""Read tensors from checkpoint files: safetensors or PyTorch files, whole or in shards.

No code of a file is ever executed: pickles are read with `torch.load(weights_only=True)`.
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.files.plain_data import parse_json

__all__ = ["is_archive", "read_pickle", "read_safetensors", "read_shards", "read_torch_weights"]

# The part of torch's error message that names an object other than tensors and plain containers.
_REFUSED = re.compile(
    r"(Unsupported \w+: GLOBAL|Trying to (load unsupported|call reduce)|Can only \w+) [^\n]*?(?=\. |\n|$)"
)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises
    ------
    ProtquantError
        If the file is missing, truncated or damaged.
    """
    _check_exists(path)
    try:
        return load_file(path)
    # Damaged headers raise errors that safetensors does not declare: KeyError for unknown types, and others.
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from error


def read_pickle(path: Path) -> Any:
    """Return the content of a `torch.save` file: tensors and plain containers; other objects must be allow-listed.

    Raises
    ------
    ProtquantError
        If the file is missing, truncated or damaged, or contains objects that are not allowed.
    """
    _check_exists(path)
    is_mappable = is_archive(path)
    try:
        # Mapped tensors take no extra memory if they need no conversion; the older format cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mappable)
    except Exception as error:  # what a damaged pickle raises depends on where the damage is
        if refused := _REFUSED.search(str(error)):
            raise ProtquantError(
                f"{path}: holds more than tensors ({refused[0]}), which is not loaded because it could run code;"
                " where you trust the file, convert it to safetensors."
            ) from error
        raise _damaged(path, error) from error


def read_torch_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `pytorch_model.bin`.

    Raises
    ------
    ProtquantError
        See `read_pickle`; also if the content is not a table of tensors.
    """
    state = read_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ProtquantError(f"{path}: expected a table of tensors (a state dict), found something else.")
    return dict(state)


def read_shards(index: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all files in an index (`*.index.json`); `read` reads one file.

    Raises
    ------
    ProtquantError
        If the index is damaged, or a shard is missing, damaged, or lacks a tensor of the index.
    """
    try:
        places: dict[str, str] = parse_json(index.read_bytes())["weight_map"]
        shards = sorted(set(places.values()))
        paths = [index.parent / Path(shard).name for shard in shards]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(index, error) from error
    state: dict[str, Tensor] = {}
    for path in paths:
        state.update(read(path))
    if lost := [name for name in places if name not in state]:
        raise ProtquantError(
            f"{index}: {len(lost)} tensors are in none of its {len(shards)} files, such as"
            f" {lost[0]} of {places[lost[0]]}; fetch the checkpoint again."
        )
    return state


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip archive, the current format of torch; files of the older format are pickles.

    Raises
    ------
    ProtquantError
        If the archive is damaged or contains compressed files. torch writes none, and a small file could unpack to any
        size.
    """
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            packed = [each.filename for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(path, error) from error
    if packed:
        raise ProtquantError(f"{path}: {packed[0]} in it is compressed, which torch.save does not do; save it again.")
    return True


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise ProtquantError(f"{path}: no such file; fetch the checkpoint again, whole.")


def _damaged(path: Path, error: Exception) -> ProtquantError:
    sentence = " ".join(str(error).split()).partition(". ")[0]
    reason = sentence if " " in sentence else type(error).__name__
    return ProtquantError(f"{path}: cannot be read, it is truncated or damaged ({reason}); fetch it again.")
