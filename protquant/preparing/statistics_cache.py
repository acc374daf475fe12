"""Cache calibration statistics on disk for later processes.

There is one safetensors file per calibration, named by its key (`protquant.quant.calibration_key`), in a folder of
`protquant.files.cache_folder`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.files import atomic_write, prepare_folder
from protquant.files.array_file import decode_arrays, encode_arrays
from protquant.files.cache_folder import cache_folder
from protquant.quant import MemoryCache, Moments, Statistics, StatisticsCache

__all__ = ["DiskCache", "statistics_cache"]

log = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_PARTS = ("lowest", "highest", "rows")
_WHOLE = ("sample", "channel_minimum", "channel_maximum")


_process: dict[Path | None, StatisticsCache] = {}


def statistics_cache() -> StatisticsCache:
    """Return the cache of this process: in memory, and on disk unless that is switched off."""
    folder = cache_folder()
    if folder not in _process:
        _process[folder] = MemoryCache() if folder is None else DiskCache(folder)
    return _process[folder]


@dataclass(frozen=True)
class _Entry:
    path: Path
    bytes: int
    used: float


class DiskCache:
    """Stores statistics in a folder, and recently used ones in memory as well.

    Parameters
    ----------
    folder : Path
        Folder of the cache; the first `put` makes it.
    limit : int
        Maximal bytes of all files; beyond it the least recently used files are deleted.
    """

    def __init__(self, folder: Path, limit: int = 4 * 2**30) -> None:
        self.folder = folder / "statistics"
        self.limit = limit
        self._memory = MemoryCache()

    def get(self, key: str) -> dict[str, Statistics] | None:
        """Return the stored statistics; None if there are none. A damaged file is reported and deleted."""
        known = self._memory.get(key)
        if known is not None:
            return known
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s cannot be read (%s); calibrating again", path, error)
            return None
        try:
            statistics = _decode(content, key)
        except (ProtquantError, RuntimeError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s); calibrating again", path, error)
            path.unlink(missing_ok=True)
            return None
        # The modification time records the last use, which decides what is deleted first.
        path.touch()
        self._memory.put(key, statistics)
        return statistics

    def put(self, key: str, statistics: Mapping[str, Statistics]) -> None:
        """Write a file; a folder that cannot be written causes a warning, not an error."""
        self._memory.put(key, statistics)
        content = _encode(statistics, key)
        if len(content) > self.limit:
            return
        try:
            prepare_folder(self.folder)
            atomic_write(self._path(key), content)
        except ProtquantError as error:
            log.warning("statistics are not kept for the next run: %s (PROTQUANT_CACHE=off keeps none)", error)
            return
        self._make_room()

    def entries(self) -> list[_Entry]:
        """Return the files, the least recently used first."""
        found = [(path, path.stat()) for path in self.folder.glob(f"*{_SUFFIX}")] if self.folder.is_dir() else []
        return sorted((_Entry(path, stat.st_size, stat.st_mtime) for path, stat in found), key=lambda each: each.used)

    def clear(self) -> int:
        """Delete all files, and return the number of freed bytes."""
        self._memory.clear()
        freed = 0
        for entry in self.entries():
            entry.path.unlink(missing_ok=True)
            freed += entry.bytes
        return freed

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _make_room(self) -> None:
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total <= self.limit:
                break
            entry.path.unlink(missing_ok=True)
            total -= entry.bytes


def _encode(statistics: Mapping[str, Statistics], key: str) -> bytes:
    """Return the bytes of one file for all statistics; shared statistics are stored once."""
    numbers: dict[int, int] = {}
    tensors: dict[str, Tensor] = {}
    facts: list[dict[str, Any]] = []
    sites = {}
    for site, seen in statistics.items():
        if id(seen) not in numbers:
            number = numbers[id(seen)] = len(facts)
            facts.append(
                {
                    "count": seen.count,
                    "mean": seen.mean,
                    "moments": list(seen.moments),
                    **{name: [len(part) for part in getattr(seen, name)] for name in _PARTS},
                }
            )
            for name in _PARTS:
                parts = getattr(seen, name)
                tensors[f"{number}.{name}"] = torch.cat(parts) if parts else torch.empty(0)
            tensors |= {f"{number}.{name}": getattr(seen, name) for name in _WHOLE if getattr(seen, name) is not None}
        sites[site] = numbers[id(seen)]
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return encode_arrays(key, arrays, {"sites": sites, "statistics": facts})


def _decode(content: bytes, key: str) -> dict[str, Statistics]:
    """Return the statistics of a file that `_encode` made.

    Raises
    ------
    ProtquantError
        If the file was stored under another key, or a byte has changed.
    """
    arrays, document = decode_arrays(content, key)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    distinct = []
    for number, facts in enumerate(document["statistics"]):
        parts: dict[str, Any] = {
            name: tuple(tensors[f"{number}.{name}"].split(facts[name])) if facts[name] else () for name in _PARTS
        }
        whole: dict[str, Any] = {name: tensors.get(f"{number}.{name}") for name in _WHOLE}
        distinct.append(Statistics(facts["count"], facts["mean"], moments=Moments(*facts["moments"]), **parts, **whole))
    return {site: distinct[number] for site, number in document["sites"].items()}
