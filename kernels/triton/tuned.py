"""Tuned tiles, which replace those of the small tables.

`protquant kernels --tune` finds them, and writes a JSON file for each kind of GPU to the folder of
`protquant.files.cache_folder`. Tiles that were timed with another version of triton are ignored.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import astuple, fields
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
import triton

from protquant.files import atomic_write, prepare_folder
from protquant.files.cache_folder import cache_folder
from protquant.kernels.triton.tiles import MatmulTile
from protquant.kernels.triton.tiles_triangle import AttentionTile, TransitionTile

__all__ = ["keep_tiles", "tuned", "tuned_tiles"]

log = logging.getLogger(__name__)

Tile = MatmulTile | AttentionTile | TransitionTile
_Tile = TypeVar("_Tile", MatmulTile, AttentionTile, TransitionTile)


def tuned(key: str, device: torch.device, default: _Tile) -> _Tile:
    """Return the tuned tile of the kernel that `key` names; the default if there is none, and on a CPU."""
    gpu = _name_of(device)
    numbers = None if gpu is None else tuned_tiles(gpu).get(key)
    if numbers is None or len(numbers) != len(fields(default)):
        return default
    return type(default)(*numbers)


@cache
def tuned_tiles(gpu: str) -> Mapping[str, tuple[int, ...]]:
    """Return all tuned tiles of a kind of GPU; a file that cannot be read is reported, and counts as empty."""
    try:
        path = _path(gpu)
        if path is None or not path.is_file():
            return {}
        document = json.loads(path.read_text())
        tiles = {str(key): tuple(int(number) for number in tile) for key, tile in document["tiles"].items()}
        return tiles if document.get("triton") == triton.__version__ else {}
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        log.warning("tiles of kernels cannot be read (%s); run `protquant kernels --tune` again", error)
        return {}


def keep_tiles(gpu: str, tiles: Mapping[str, Tile | None]) -> Path | None:
    """Save tiles for later runs, add them to the saved ones, and delete the tiles of keys with None.

    Returns
    -------
    Path or None
        The file; None if the cache folder is off.

    Raises
    ------
    ProtquantError
        If the file cannot be written; the old file stays.
    """
    path = _path(gpu)
    if path is None:
        return None
    kept = {key: tile for key, tile in tuned_tiles(gpu).items() if key not in tiles}
    kept |= {key: astuple(tile) for key, tile in tiles.items() if tile is not None}
    prepare_folder(path.parent)
    atomic_write(path, json.dumps({"gpu": gpu, "triton": triton.__version__, "tiles": kept}, indent=1) + "\n")
    tuned_tiles.cache_clear()
    return path


@cache
def _name_of(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _path(gpu: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "tiles" / f"{gpu.replace(' ', '_').replace('/', '_')}.json"
