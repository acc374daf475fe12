"""Statistics of calibration on disk, so that the next process need not gather them again.

One safetensors file per calibration, named by the hash of what it depends on (`protquant.quant.calibration_key`), in a
folder of `protquant.files.cache_folder`.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.files import atomic_write, prepare_folder
from protquant.files.cache_folder import cache_folder
from protquant.quant import MemoryCache, Moments, Statistics, StatisticsCache

__all__ = ["DiskCache", "statistics_cache"]

log = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_LAYOUT = "protquant-statistics-1"


_process: dict[Path | None, StatisticsCache] = {}


def statistics_cache() -> StatisticsCache:
    """The cache of this process: in memory, and on disk unless that is switched off."""
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
    """Keeps statistics in a folder, those used last in memory too.

    Parameters
    ----------
    folder : Path
        Made when something is first put there.
    limit : int
        Bytes of all files; those used longest ago are deleted where they are more.
    """

    def __init__(self, folder: Path, limit: int = 4 * 2**30) -> None:
        self.folder = folder / "statistics"
        self.limit = limit
        self._memory = MemoryCache()

    def get(self, key: str) -> dict[str, Statistics] | None:
        """What was put there; None if nothing was. A damaged file is reported, deleted and counts as nothing."""
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
        except (ProtquantError, SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s); calibrating again", path, error)
            path.unlink(missing_ok=True)
            return None
        # The time of the last use decides what is deleted first.
        path.touch()
        self._memory.put(key, statistics)
        return statistics

    def put(self, key: str, statistics: Mapping[str, Statistics]) -> None:
        """Write a file; a folder that cannot be written is reported, and no error."""
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
        """Files, the one used longest ago first."""
        found = [(path, path.stat()) for path in self.folder.glob(f"*{_SUFFIX}")] if self.folder.is_dir() else []
        return sorted((_Entry(path, stat.st_size, stat.st_mtime) for path, stat in found), key=lambda each: each.used)

    def clear(self) -> int:
        """Delete all files, and return how many bytes that frees."""
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
    """One file: tensors, and the rest as JSON in the header; sites that share statistics name the same ones."""
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
                    **{name: [len(part) for part in getattr(seen, name)] for name in ("lowest", "highest", "rows")},
                }
            )
            for name in ("lowest", "highest", "rows"):
                parts = getattr(seen, name)
                tensors[f"{number}.{name}"] = torch.cat(parts) if parts else torch.empty(0)
            tensors[f"{number}.sample"] = seen.sample.clone()
            for name in ("channel_minimum", "channel_maximum"):
                channels = getattr(seen, name)
                if channels is not None:
                    tensors[f"{number}.{name}"] = channels.clone()
        sites[site] = numbers[id(seen)]
    document = json.dumps({"sites": sites, "statistics": facts})
    header = {"layout": _LAYOUT, "key": key, "document": document, "sha256": _digest(document, tensors)}
    return save(tensors, header)


def _decode(content: bytes, key: str) -> dict[str, Statistics]:
    """What `_encode` made a file of.

    Raises
    ------
    ProtquantError
        If it is another one's, or a byte has changed.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    if header["layout"] != _LAYOUT or header["key"] != key:
        raise ProtquantError("it holds something else")
    if header["sha256"] != _digest(header["document"], tensors):
        raise ProtquantError("its content does not have the hash that it had")
    document = json.loads(header["document"])
    distinct = []
    for number, facts in enumerate(document["statistics"]):
        parts: dict[str, Sequence[Tensor]] = {
            name: tensors[f"{number}.{name}"].split(facts[name]) if facts[name] else ()
            for name in ("lowest", "highest", "rows")
        }
        distinct.append(
            Statistics(
                count=facts["count"],
                mean=facts["mean"],
                moments=Moments(*facts["moments"]),
                lowest=tuple(parts["lowest"]),
                highest=tuple(parts["highest"]),
                channel_minimum=tensors.get(f"{number}.channel_minimum"),
                channel_maximum=tensors.get(f"{number}.channel_maximum"),
                sample=tensors[f"{number}.sample"],
                rows=tuple(parts["rows"]),
            )
        )
    return {site: distinct[number] for site, number in document["sites"].items()}


def _digest(document: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(document.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
