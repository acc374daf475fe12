"""Blocks are recorded at the second pass of a shape, and replayed from then on; what cannot be runs as ever."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from protquant.integer import blocks as blocks_module
from protquant.integer import recording as recording_module
from protquant.integer import to_integer
from protquant.integer.blocks import IntegerBlocks
from protquant.kernels.backend import Backend
from protquant.kernels.cpu import CPUBackend
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models.trunk import FoldingBlock, FoldingBlocks, TrunkConfig
from protquant.quant import calibrate, quantize
from protquant.quant.recipe import load_recipe

CONFIG = TrunkConfig(single_dim=64, pair_dim=32, single_head_dim=16, pair_head_dim=16)


def integer_blocks(recipe: str = "w8a8-int8", make: type[Backend] = CPUBackend) -> tuple[IntegerBlocks, Backend]:
    torch.manual_seed(0)
    blocks = FoldingBlocks(FoldingBlock(CONFIG) for _ in range(2)).eval().requires_grad_(False)
    for parameter in blocks.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape) + (1.0 if parameter.ndim == 1 else 0.0)
    statistics = calibrate(blocks, [inputs(9)], lambda model, three: model(*three))
    backend = make()
    running, _ = to_integer(quantize(blocks, load_recipe(recipe), statistics)[0], backend)
    assert isinstance(running, IntegerBlocks)
    return running, backend


def inputs(length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    mask = torch.ones(1, length, dtype=torch.bool)
    return 3 * torch.randn(1, length, 64), 3 * torch.randn(1, length, length, 32), mask


def run(blocks: nn.Module, length: int, seed: int = 0, padding: int = 0) -> tuple[Tensor, Tensor]:
    single, pair, mask = inputs(length, seed)
    mask[:, length - padding :] = False
    with torch.no_grad():
        return blocks(single, pair, mask)


def assert_equal(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_the_second_pass_of_a_shape_is_recorded_and_gives_what_the_first_gave(tapes: Any):
    blocks, backend = integer_blocks()
    expected = [run(blocks.with_recorder(records=False), 9, seed) for seed in range(3)]
    backend.calls.clear()
    tapes.calls = backend.calls
    found, calls = [], []
    for seed in range(3):
        found.append(run(blocks, 9, seed))
        calls.append(dict(backend.calls))
    assert tapes.replays == [2] and blocks.recorder.is_recorded
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)
    # What is replayed counts, and counts once; what is recorded does not.
    assert calls[0]
    for passes, counted in enumerate(calls, 1):
        assert counted == {key: passes * count for key, count in calls[0].items()}


def test_another_shape_drops_the_recording(tapes: Any):
    blocks, _ = integer_blocks()
    for length in (9, 9, 7, 9, 9):
        run(blocks, length)
    assert tapes.replays == [1, 1]


def test_nothing_is_kept_of_a_shape_that_is_not_there_any_more(tapes: Any, monkeypatch: pytest.MonkeyPatch):
    blocks, _ = integer_blocks()
    monkeypatch.setattr(blocks_module, "_MOST_PAIRS", 90)
    for length in (9, 9, 11):
        run(blocks, length)
    assert len(tapes) == 1 and not blocks.recorder.is_recorded


def test_copies_and_parts_are_not_recorded(tapes: Any):
    blocks, _ = integer_blocks(make=ReferenceBackend)  # layers of oneDNN cannot be copied
    expected = run(blocks, 9)
    run(blocks, 9)
    assert blocks.recorder.is_recorded
    for other in (copy.deepcopy(blocks), blocks[:2]):
        assert isinstance(other, IntegerBlocks) and not other.recorder.is_recorded
        assert_equal(run(other, 9), expected)
    assert len(tapes) == 1


@pytest.mark.parametrize("why", ["padding", "gradients", "switched off", "too long"])
def test_what_is_not_recorded_runs_as_ever(why: str, tapes: Any, monkeypatch: pytest.MonkeyPatch):
    blocks, _ = integer_blocks()
    if why == "too long":
        monkeypatch.setattr(blocks_module, "_MOST_PAIRS", 80)
    blocks.recorder.records = why != "switched off"
    expected = run(blocks.with_recorder(records=False), 9, padding=2 * (why == "padding"))
    for _ in range(3):
        if why == "gradients":
            found = blocks(*inputs(9))
        else:
            found = run(blocks, 9, padding=2 * (why == "padding"))
        assert_equal(found, expected)
    assert tapes == []


def test_parts_that_are_simulated_are_not_recorded(tapes: Any):
    blocks, _ = integer_blocks("w8a8-token")
    assert any(block.simulated for block in blocks)
    for _ in range(3):
        run(blocks, 9)
    assert tapes == []


def test_where_recording_fails_blocks_run_one_by_one_and_that_is_said(
    tapes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recording_module, "Recording", fails)
    blocks, _ = integer_blocks()
    expected = run(blocks.with_recorder(records=False), 9)
    for _ in range(3):
        assert_equal(run(blocks, 9), expected)
    assert caplog.text.count("cannot be recorded on this GPU: operation not permitted") == 1


def test_without_memory_for_one_recording_another_may_be_made(
    tapes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(recording_module, "Recording", tapes.record_few)
    blocks, backend = integer_blocks()
    backend.calls.clear()
    once = run(blocks, 9) and dict(backend.calls)
    run(blocks, 9)
    assert backend.calls == {key: 2 * count for key, count in once.items()}
    assert "there is no memory for a recording of 1 x 9 x 64 and 1 x 9 x 9 x 32 numbers" in caplog.text
    for _ in range(2):
        run(blocks, 7)
    assert blocks.recorder.is_recorded and len(tapes) == 1
