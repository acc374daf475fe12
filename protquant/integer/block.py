"""A block of the folding trunk on integers."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.operands import NoIntegerKernelError
from protquant.integer.pair_stream import PairStream, SimulatedCodec, pair_codec
from protquant.integer.part import BlockState, Part, Runs, SupportRow
from protquant.integer.simulated import (
    SimulatedPairToBias,
    SimulatedPairTransition,
    SimulatedPart,
    SimulatedSingleAttention,
    SimulatedSingleToPair,
    SimulatedSingleTransition,
    SimulatedTriangleAttention,
    SimulatedTriangleMultiplication,
)
from protquant.integer.single import IntegerPairToBias, IntegerSingleAttention, IntegerSingleToPair
from protquant.integer.transition import IntegerPairTransition, IntegerSingleTransition
from protquant.integer.triangle import IntegerTriangleAttention, IntegerTriangleMultiplication
from protquant.kernels.backend import Backend
from protquant.models.trunk import FoldingBlock

__all__ = ["IntegerFoldingBlock"]

_PARTS: dict[str, tuple[Callable[..., Part], Callable[..., Part]]] = {
    "pair_to_bias": (IntegerPairToBias, SimulatedPairToBias),
    "single_attn": (IntegerSingleAttention, SimulatedSingleAttention),
    "single_transition": (IntegerSingleTransition, SimulatedSingleTransition),
    "single_to_pair": (IntegerSingleToPair, SimulatedSingleToPair),
    "tri_mul_out": (IntegerTriangleMultiplication, SimulatedTriangleMultiplication),
    "tri_mul_in": (IntegerTriangleMultiplication, SimulatedTriangleMultiplication),
    "tri_attn_start": (IntegerTriangleAttention, SimulatedTriangleAttention),
    "tri_attn_end": (IntegerTriangleAttention, SimulatedTriangleAttention),
    "pair_transition": (IntegerPairTransition, SimulatedPairTransition),
}
"""The integer part and the simulated part for each module of a block, in the order in which they run."""


class IntegerFoldingBlock(nn.Module):
    """Twin of a quantized `FoldingBlock`, whose parts run on integers as a whole where they can.

    Both representations are updated IN PLACE where they are contiguous.

    Parameters
    ----------
    block : FoldingBlock
        Block that gives its modules to the twin, and cannot be used afterwards.

    Attributes
    ----------
    codecs : dict
        Format of the pair after each of its updates; None means that it does not change.
    simulated : list of str
        Names of parts that do not run on integers as a whole.
    rows : list of SupportRow
        What runs on integers, how the pair is stored, and what is simulated.
    is_recordable : bool
        Whether nothing in the block waits for the device.
    """

    def __init__(self, block: FoldingBlock, backend: Backend, path: str) -> None:
        super().__init__()
        self.pair_residual = block.pair_residual
        self.codecs = {name: pair_codec(tap, backend) for name, tap in block.pair_residual.items()}
        own: dict[str, dict[str, Any]] = {name: {"codec": codec} for name, codec in self.codecs.items()}
        own["single_attn"] = {"norm": block.single_norm}
        for name, (integer, simulated) in _PARTS.items():
            module, where, options = block.get_submodule(name), f"{path}.{name}", own.get(name, {})
            try:
                part = integer(module, backend, where, **options)
            except NoIntegerKernelError as reason:
                part = simulated(module, backend, where, str(reason), **options)
            assert isinstance(part, nn.Module)
            self.add_module(name, part)
        self.simulated = [name for name, part in self.parts.items() if isinstance(part, SimulatedPart)]
        stored = {f"{path}.pair_residual.{name}": codec for name, codec in self.codecs.items() if codec is not None}
        self.rows = [row for name, part in self.parts.items() if name not in self.simulated for row in part.rows]
        for where, codec in stored.items():
            runs: Runs = "simulated" if isinstance(codec, SimulatedCodec) else "integer"
            self.rows.append(SupportRow(where, runs, f"kept in {codec.what}"))
        self.rows += [row for name in self.simulated for row in self.parts[name].rows]
        # Simulated parts, and codecs that simulate, wait for the device.
        self.is_recordable = all(row.runs == "integer" for row in self.rows)

    next_inputs = staticmethod(FoldingBlock.next_inputs)

    @property
    def parts(self) -> dict[str, Part]:
        """Return parts by name, in the order in which they run."""
        return {name: self.get_submodule(name) for name in _PARTS}  # type: ignore[misc]  # they are modules too

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"] | PairStream,
        mask: Bool[Tensor, "b l"] | None,
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"] | PairStream]:
        """Return the single and the pair, as floats or as a stream, like the input.

        `mask` may be None if all residues are valid. Only simulated parts use `chunk_size`.
        """
        stream = pair if isinstance(pair, PairStream) else PairStream(pair)
        mask = None if mask is None or bool(mask.all()) else mask
        state = BlockState(single.contiguous(), stream, mask, chunk_size)
        for part in self.parts.values():
            part.update_(state)
        return state.single, pair if isinstance(pair, PairStream) else stream.floats()
