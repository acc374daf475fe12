"""The fastest tile that gives the same is found, kept, and used by the kernels from then on."""

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton

from protquant.bench.tuning import Case, cases_of, tune
from protquant.errors import ProtquantError
from protquant.kernels.operands import Codes8, IntegerWeight
from protquant.kernels.triton import tuned as module
from protquant.kernels.triton.int8_linear import linear_int8, linear_int8_kernel
from protquant.kernels.triton.operands import KernelWeight
from protquant.kernels.triton.tiles import MatmulTile
from protquant.kernels.triton.tiles_triangle import AttentionTile
from protquant.kernels.triton.tuned import keep_tiles, tuned, tuned_tiles

DEFAULT, FAST, WRONG, LARGE = (MatmulTile(size, 16, 32, 4, 2) for size in (64, 32, 16, 128))
GPU = "NVIDIA H100 80GB/HBM3"


def case(*others: MatmulTile) -> Case:
    def run(tile: MatmulTile) -> Tensor:
        if tile == LARGE:
            raise RuntimeError("out of resource: shared memory")
        run.last = tile  # type: ignore[attr-defined]
        return torch.full((3,), 500.0 if tile == WRONG else 100.0)

    return Case("linear int8, few channels", "3 x 16 -> 8", DEFAULT, [astuple(tile) for tile in others], run)


def clock(times: dict[MatmulTile, float]) -> Callable[[Callable[[], Any]], float]:
    """Tells the time of a tile from its first argument: as if it had been measured."""

    def measure(call: Callable[[], Any]) -> float:
        call()
        return times[call.__defaults__[-1] if isinstance(call.__defaults__[-1], MatmulTile) else DEFAULT]  # type: ignore[attr-defined]

    return measure


def test_the_fastest_is_found_and_those_that_do_not_run_are_counted():
    (found,) = tune([case(DEFAULT, FAST, LARGE)], clock({DEFAULT: 10.0, FAST: 4.0}))
    assert (found.best, found.default, found.tried, found.failed) == (FAST, DEFAULT, 3, 1)
    assert (found.best_microseconds, found.default_microseconds) == (4.0, 10.0)


def test_a_gain_within_noise_changes_nothing():
    (found,) = tune([case(FAST)], clock({DEFAULT: 10.0, FAST: 9.9}))
    assert found.best == DEFAULT and found.best_microseconds == 10.0


def test_a_tile_that_gives_something_else_is_an_error():
    with pytest.raises(ProtquantError, match=r"few channels: MatmulTile\(block_m=16.* does not give what"):
        tune([case(WRONG)], clock({DEFAULT: 10.0, WRONG: 1.0}))


def test_every_case_is_of_the_key_that_its_kernel_looks_for(monkeypatch: pytest.MonkeyPatch):
    asked = list[str]()

    def ask(key: str, device: torch.device, default: MatmulTile) -> MatmulTile:
        asked.append(key)
        return default

    for kernel in ("attention", "gated_projection", "int4_linear", "int8_linear", "transition", "triangle_product"):
        monkeypatch.setattr(f"protquant.kernels.triton.{kernel}.tuned", ask)
    # Keys are looked for before kernels are launched, which takes half a minute in the interpreter.
    monkeypatch.setattr(type(linear_int8_kernel), "__getitem__", lambda _self, _grid: lambda *_, **__: None)
    monkeypatch.setattr("protquant.bench.tuning._SINGLE", 288)
    cases = list(cases_of(torch.device("cpu"), 17))
    for case in cases:
        case.run(None)
    assert asked == [case.key for case in cases] and len(set(asked)) == len(asked)


@pytest.fixture
def as_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The interpreter's device has a name, as a GPU has."""
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_name_of", lambda _: GPU)
    tuned_tiles.cache_clear()
    return tmp_path / "tiles" / "NVIDIA_H100_80GB_HBM3.json"


def test_kernels_use_what_is_kept(as_on_a_gpu: Path, monkeypatch: pytest.MonkeyPatch):
    used = []
    monkeypatch.setattr(linear_int8_kernel, "run", lambda *_, **given: used.append(given["BLOCK_M"]), raising=False)
    monkeypatch.setattr(type(linear_int8_kernel), "__getitem__", lambda self, _: self.run)
    x = Codes8(torch.zeros(3, 16, dtype=torch.int8), torch.ones(1), torch.zeros(1, dtype=torch.int32))
    codes = torch.zeros(8, 16, dtype=torch.int8)
    weight = KernelWeight.of(IntegerWeight(codes, torch.ones(8, 1), None, None, 8))
    for _ in range(2):
        linear_int8(x, weight)
        assert keep_tiles(GPU, {"linear int8, few channels": FAST}) == as_on_a_gpu
    assert used == [64, FAST.block_m]
    assert json.loads(as_on_a_gpu.read_text())["gpu"] == GPU


def test_tiles_are_added_to_those_that_are_kept(as_on_a_gpu: Path):
    keep_tiles(GPU, {"one": FAST})
    keep_tiles(GPU, {"other": LARGE})
    assert tuned_tiles(GPU) == {"one": (32, 16, 32, 4, 2), "other": (128, 16, 32, 4, 2)}
    assert tuned("one", torch.device("cpu"), DEFAULT) == FAST
    assert tuned("none", torch.device("cpu"), DEFAULT) == DEFAULT


def test_what_is_no_longer_the_fastest_is_forgotten(as_on_a_gpu: Path):
    keep_tiles(GPU, {"one": FAST, "other": LARGE})
    keep_tiles(GPU, {"one": None})
    assert tuned_tiles(GPU) == {"other": (128, 16, 32, 4, 2)}


def test_a_tile_of_too_few_numbers_is_none(as_on_a_gpu: Path):
    keep_tiles(GPU, {"one": AttentionTile(64, 64, 4, 2)})
    assert tuned("one", torch.device("cpu"), DEFAULT) == DEFAULT


def test_tiles_of_another_triton_do_not_count(as_on_a_gpu: Path, monkeypatch: pytest.MonkeyPatch):
    keep_tiles(GPU, {"one": FAST})
    monkeypatch.setattr(triton, "__version__", "0.0")
    tuned_tiles.cache_clear()
    assert tuned_tiles(GPU) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"tiles": {"one": "many"}}', '{"triton": 1}'])
def test_a_file_that_cannot_be_read_is_reported_and_counts_as_none(
    text: str, as_on_a_gpu: Path, caplog: pytest.LogCaptureFixture
):
    as_on_a_gpu.parent.mkdir()
    as_on_a_gpu.write_text(text)
    assert tuned_tiles(GPU) == {}
    assert "run `protquant kernels --tune` again" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path / "file"))
    tuned_tiles.cache_clear()
    with pytest.raises(ProtquantError, match="file"):
        keep_tiles(GPU, {"one": FAST})


def test_nothing_is_kept_where_nothing_is_to_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROTQUANT_CACHE", "off")
    tuned_tiles.cache_clear()
    assert keep_tiles(GPU, {"one": FAST}) is None and tuned_tiles(GPU) == {}
