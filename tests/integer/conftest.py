"""A quantized folding block in pieces, and what stands for CUDA graphs on a machine without a GPU."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from protquant.integer import recording
from protquant.integer.pair_stream import PairStream
from protquant.integer.part import BlockState
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models.trunk import FoldingBlock, TrunkConfig
from protquant.quant import calibrate, load_recipe, quantize

Run = Callable[..., tuple[Tensor, ...]]


class Tape:
    """Stands for a CUDA graph: runs again what it was given, uncounted."""

    def __init__(self, calls: Counter[tuple[str, str]], run: Run, *inputs: Tensor) -> None:
        self.calls, self.run, self.replays = calls, run, 0
        self.run(*(x.clone() for x in inputs))

    def replay(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.replays += 1
        before = self.calls.copy()
        result = self.run(*(x.clone() for x in inputs))
        self.calls.clear()
        self.calls.update(before)
        return result


class Tapes(list[Tape]):
    """All that were made; `calls` are those of the backend."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[tuple[str, str]]()

    def record(self, run: Run, *inputs: Tensor) -> Tape:
        self.append(Tape(self.calls, run, *inputs))
        return self[-1]

    def record_few(self, run: Run, *inputs: Tensor) -> Tape:
        """There is no memory for more than 8 residues."""
        if inputs[-1].shape[1] > 8:
            run(*(x.clone() for x in inputs))
            raise torch.OutOfMemoryError
        return self.record(run, *inputs)

    @property
    def replays(self) -> list[int]:
        return [tape.replays for tape in self]


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Tapes:
    made = Tapes()
    monkeypatch.setattr(recording, "Recording", made.record)
    monkeypatch.setattr(recording, "_DEVICES", ("cpu",))
    return made


LENGTH = 7


@pytest.fixture(scope="session")
def quantized_block() -> FoldingBlock:
    """A block by w8a8-int8, calibrated on inputs as `new_state` makes them."""
    torch.manual_seed(0)
    config = TrunkConfig(single_dim=24, pair_dim=12, single_head_dim=8, pair_head_dim=4)
    block = FoldingBlock(config).eval().requires_grad_(False)
    for parameter in block.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape) + (1.0 if parameter.ndim == 1 else 0.0)
    state = new_state()
    inputs = state.single, state.pair.floats(), state.full_mask
    statistics = calibrate(block, [inputs], lambda model, three: model(*three))
    return quantize(block, load_recipe("w8a8-int8"), statistics)[0]


def new_state() -> BlockState:
    """Two proteins, one of them with padding."""
    torch.manual_seed(1)
    mask = torch.arange(LENGTH) < torch.tensor([[LENGTH], [5]])
    pair = PairStream(3 * torch.randn(2, LENGTH, LENGTH, 12))
    return BlockState(3 * torch.randn(2, LENGTH, 24), pair, mask, bias=torch.randn(2, 3, LENGTH, LENGTH))


@pytest.fixture
def updates(quantized_block: FoldingBlock) -> Callable[..., list[BlockState]]:
    """Runs the integer and the simulated form of a part on the same state; gives the states, and the state before."""

    def run(name: str, integer: type, simulated: type, **options: Any) -> list[BlockState]:
        states = []
        for make, reason in ((integer, ()), (simulated, ("tested",))):
            module = copy.deepcopy(quantized_block.get_submodule(name))
            part = make(module, ReferenceBackend(), name, *reason, **options)
            assert [row.runs for row in part.rows][:1] == ["simulated" if reason else "integer"]
            assert part.rows[0].path == name
            states.append(new_state())
            with torch.no_grad():
                part.update_(states[-1])
        return [*states, new_state()]

    return run


@pytest.fixture
def same_update() -> Callable[..., None]:
    """Asserts that two updates of the same are alike to rounding, and to a few codes at a tie."""

    def check(found: Tensor, expected: Tensor, before: Tensor) -> None:
        assert (expected - before).norm() > 0.1
        assert (found - expected).norm() < 0.01 * (expected - before).norm()

    return check
