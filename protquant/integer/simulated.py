"""Parts of a folding block that do not run on integers as a whole: they decode their inputs and compute in float.

Each of their linear layers multiplies codes if it has a kernel.
"""

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from protquant.integer.linear import linear_twin
from protquant.integer.pair_stream import PairCodec
from protquant.integer.part import BlockState, SupportRow
from protquant.kernels.backend import Backend
from protquant.quant.modules import QuantizedLinear

__all__ = [
    "SimulatedPairToBias",
    "SimulatedPairTransition",
    "SimulatedPart",
    "SimulatedSingleAttention",
    "SimulatedSingleToPair",
    "SimulatedSingleTransition",
    "SimulatedTriangleAttention",
    "SimulatedTriangleMultiplication",
]


class SimulatedPart(nn.Module, ABC):
    """A quantized module as a part.

    Parameters
    ----------
    module : nn.Module
        Module whose linear layers are replaced by their twins, in place.
    reason : str
        Reason why the module does not run on integers as a whole.
    """

    def __init__(self, module: nn.Module, backend: Backend, path: str, reason: str) -> None:
        super().__init__()
        self.module = module
        self.rows = [SupportRow(path, "simulated", f"not as a whole: {reason}")]
        for name in [name for name, layer in module.named_modules() if isinstance(layer, QuantizedLinear)]:
            twin, row = linear_twin(module.get_submodule(name), backend, f"{path}.{name}")
            module.set_submodule(name, twin)
            self.rows.append(row)

    @abstractmethod
    def update_(self, state: BlockState) -> None:
        """Update the state in place."""


class SimulatedPairToBias(SimulatedPart):
    """`PairToBias` in float."""

    def update_(self, state: BlockState) -> None:
        state.bias = self.module(state.pair.floats())


class SimulatedSingleAttention(SimulatedPart):
    """`SingleAttention` in float, and the norm before it."""

    def __init__(self, module: nn.Module, backend: Backend, path: str, reason: str, norm: nn.Module) -> None:
        super().__init__(module, backend, path, reason)
        self.norm = norm

    def update_(self, state: BlockState) -> None:
        single, bias = state.single, state.take_bias()
        single += self.module(self.norm(single), bias.to(single.dtype), state.full_mask)


class SimulatedSingleTransition(SimulatedPart):
    """`Transition` of the single in float."""

    def update_(self, state: BlockState) -> None:
        state.single += self.module(state.single)


class _SimulatedPairUpdate(SimulatedPart):
    """A module that computes an update of the pair; `codec` stores the sum."""

    def __init__(
        self, module: nn.Module, backend: Backend, path: str, reason: str, codec: PairCodec | None = None
    ) -> None:
        super().__init__(module, backend, path, reason)
        self.codec = codec

    def update_(self, state: BlockState) -> None:
        update = self.module(*self._inputs(state))
        state.pair.put(state.pair.floats() + update, self.codec)

    @abstractmethod
    def _inputs(self, state: BlockState) -> tuple[Any, ...]:
        """Return the inputs of the module."""


class SimulatedSingleToPair(_SimulatedPairUpdate):
    """`SingleToPair` in float."""

    def _inputs(self, state: BlockState) -> tuple[Any, ...]:
        return (state.single,)


class SimulatedTriangleMultiplication(_SimulatedPairUpdate):
    """`TriangleMultiplication` in float."""

    def _inputs(self, state: BlockState) -> tuple[Any, ...]:
        return state.pair.floats(), state.full_pair_mask


class SimulatedTriangleAttention(_SimulatedPairUpdate):
    """`TriangleAttention` in float, `chunk_size` rows at a time."""

    def _inputs(self, state: BlockState) -> tuple[Any, ...]:
        return state.pair.floats(), state.full_pair_mask, state.chunk_size


class SimulatedPairTransition(_SimulatedPairUpdate):
    """`Transition` of the pair in float."""

    def _inputs(self, state: BlockState) -> tuple[Any, ...]:
        return (state.pair.floats(),)
