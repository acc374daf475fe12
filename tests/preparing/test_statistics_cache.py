"""Statistics outlive the process, are bit for bit what they were, and never come from a damaged file."""

import logging
import os
from pathlib import Path

import pytest
import torch

from protquant.models import ESMFold
from protquant.preparing import quantize
from protquant.preparing.quantize import gather_statistics
from protquant.preparing.statistics_cache import DiskCache, statistics_cache
from protquant.quant import Statistics, calibrate, model_hash
from protquant.quant.cache import statistics_bytes

SEQUENCES = ["GIVEQCCTS", "MKTAYIAK"]
KEY = "0" * 64


@pytest.fixture(scope="module")
def gathered(esmfold: ESMFold) -> dict[str, Statistics]:
    return gather_statistics(esmfold, SEQUENCES, cache=False)


def assert_same(ours: Statistics, theirs: Statistics) -> None:
    assert (ours.count, ours.mean, ours.moments) == (theirs.count, theirs.mean, theirs.moments)
    for name in ("lowest", "highest", "rows"):
        assert len(getattr(ours, name)) == len(getattr(theirs, name))
        assert all(torch.equal(a, b) for a, b in zip(getattr(ours, name), getattr(theirs, name), strict=True))
    assert torch.equal(ours.sample, theirs.sample)
    for name in ("channel_minimum", "channel_maximum"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None and b is None) or torch.equal(a, b)


def stored(folder: Path) -> Path:
    (path,) = (folder / "statistics").iterdir()
    return path


def test_what_comes_back_is_what_was_put(gathered: dict[str, Statistics], tmp_path: Path):
    DiskCache(tmp_path).put(KEY, gathered)
    back = DiskCache(tmp_path).get(KEY)
    assert back is not None
    assert list(back) == list(gathered)
    for site, seen in gathered.items():
        assert_same(back[site], seen)
    # Sites that share statistics still do: formats are fitted to them once.
    assert len({id(s) for s in back.values()}) == len({id(s) for s in gathered.values()})
    assert DiskCache(tmp_path).get("1" * 64) is None


@pytest.mark.parametrize("where", [3, 200, -5])
def test_a_damaged_file_is_reported_and_gathered_again(
    gathered: dict[str, Statistics], tmp_path: Path, where: int, caplog: pytest.LogCaptureFixture
):
    DiskCache(tmp_path).put(KEY, gathered)
    path = stored(tmp_path)
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert DiskCache(tmp_path).get(KEY) is None
    assert f"{path} is damaged" in caplog.text
    assert not path.exists()


def test_half_a_file_and_another_ones_file_count_as_damaged(gathered: dict[str, Statistics], tmp_path: Path, caplog):
    cache = DiskCache(tmp_path)
    cache.put(KEY, gathered)
    path = stored(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert DiskCache(tmp_path).get(KEY) is None
    other = "1" * 64
    path.with_name(f"{other}.safetensors").write_bytes(content)
    assert DiskCache(tmp_path).get(other) is None
    assert caplog.text.count("is damaged") == 2


def test_the_next_process_does_not_run_the_model(esmfold: ESMFold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path))
    first, _ = quantize(esmfold.lm, "w8a8-uniform", SEQUENCES)
    # As a new process: nothing in memory.
    monkeypatch.setattr("protquant.preparing.statistics_cache._process", {})
    monkeypatch.setattr("protquant.quant.cache.calibrate", None)
    second, _ = quantize(esmfold.lm, "w8a8-uniform", SEQUENCES)
    assert model_hash(first) == model_hash(second)
    quantize(esmfold.lm, "w8a8-uniform-noln", SEQUENCES)


def test_statistics_are_gathered_again_where_the_cache_is_not_wanted(
    esmfold: ESMFold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path))
    calls = []

    def counting(*arguments, **settings):
        calls.append(1)
        return calibrate(*arguments, **settings)

    monkeypatch.setattr("protquant.quant.cache.calibrate", counting)
    for _ in range(2):
        quantize(esmfold.lm, "w8a8-uniform", SEQUENCES[:1], cache=False)
    assert len(calls) == 2
    assert not (tmp_path / "statistics").exists()


def test_a_folder_that_cannot_be_written_is_a_warning(gathered: dict[str, Statistics], tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file")
    cache.put(KEY, gathered)
    assert "statistics are not kept for the next run" in caplog.text
    assert cache.get(KEY) is not None  # this run has them


def test_files_used_longest_ago_make_room(gathered: dict[str, Statistics], tmp_path: Path):
    size = statistics_bytes(gathered)
    keys = [digit * 64 for digit in "abc"]
    cache = DiskCache(tmp_path, limit=int(2.6 * size))
    for age, key in enumerate(keys[:2]):
        cache.put(key, gathered)
        os.utime(cache.folder / f"{key}.safetensors", (age, age))
    assert DiskCache(tmp_path).get(keys[0]) is not None
    cache.put(keys[2], gathered)
    assert {entry.path.stem for entry in cache.entries()} == {keys[0], keys[2]}
    assert cache.clear() > size
    assert cache.entries() == []


def test_a_process_has_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path))
    assert statistics_cache() is statistics_cache()
