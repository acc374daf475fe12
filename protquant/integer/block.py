"""A block of the folding trunk on integers."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.operands import NoIntegerKernelError
from protquant.integer.pair_stream import PairStream, pair_codec
from protquant.integer.single import IntegerPairToBias, IntegerSingleAttention, IntegerSingleToPair
from protquant.integer.transition import IntegerTransition
from protquant.integer.triangle import IntegerTriangleAttention, IntegerTriangleMultiplication
from protquant.kernels.backend import Backend
from protquant.models.trunk import FoldingBlock

__all__ = ["IntegerFoldingBlock"]


class IntegerFoldingBlock(nn.Module):
    """Twin of a quantized `FoldingBlock`, whose parts are on integers as a whole where they can be.

    Both representations are updated IN PLACE where they are contiguous.

    Attributes
    ----------
    on_integers : list of str
        Names of parts that are on integers as a whole.
    left : dict
        Paths of parts that are not, and why: they run as they are.
    """

    def __init__(self, block: FoldingBlock, backend: Backend, path: str) -> None:
        super().__init__()
        self.left: dict[str, str] = {}

        def part(name: str, make: Callable[..., nn.Module], *more: Any) -> nn.Module:
            module = block.get_submodule(name)
            try:
                return make(module, *more, backend, f"{path}.{name}")
            except NoIntegerKernelError as reason:
                self.left[f"{path}.{name}"] = str(reason)
                return module

        self.pair_to_bias = part("pair_to_bias", IntegerPairToBias)
        self.single_norm = block.single_norm
        self.single_attn = part("single_attn", IntegerSingleAttention, block.single_norm)
        self.single_transition = part("single_transition", IntegerTransition)
        self.single_to_pair = part("single_to_pair", IntegerSingleToPair)
        self.tri_mul_out = part("tri_mul_out", IntegerTriangleMultiplication)
        self.tri_mul_in = part("tri_mul_in", IntegerTriangleMultiplication)
        self.tri_attn_start = part("tri_attn_start", IntegerTriangleAttention)
        self.tri_attn_end = part("tri_attn_end", IntegerTriangleAttention)
        self.pair_transition = part("pair_transition", IntegerTransition)
        self.on_integers = [name for name, module in self.named_children() if module is not block.get_submodule(name)]
        self.pair_residual = block.pair_residual
        self.codecs = {name: pair_codec(tap, backend) for name, tap in block.pair_residual.items()}

    next_inputs = staticmethod(FoldingBlock.next_inputs)

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"] | PairStream,
        mask: Bool[Tensor, "b l"] | None,
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"] | PairStream]:
        """The pair comes back as it was given: in float, or as it is kept. `mask` may be None where all are valid.

        `chunk_size` is for parts that are not on integers; the others choose their own.
        """
        single = single.contiguous()
        stream = pair if isinstance(pair, PairStream) else PairStream(pair)
        whole = mask is None or bool(mask.all())
        if mask is None:
            mask = torch.ones(single.shape[:2], dtype=torch.bool, device=single.device)
        self._update_single(single, stream, None if whole else mask, mask)
        if isinstance(self.single_to_pair, IntegerSingleToPair):
            self.single_to_pair.add_to_(single, stream, self.codecs["single_to_pair"])
        else:
            self._simulate("single_to_pair", stream, single)
        pair_mask = mask[:, :, None] & mask[:, None, :]
        for name in ("tri_mul_out", "tri_mul_in", "tri_attn_start", "tri_attn_end"):
            part = self.get_submodule(name)
            if isinstance(part, IntegerTriangleMultiplication | IntegerTriangleAttention):
                part.add_to_(stream, None if whole else pair_mask, self.codecs[name])
            elif "mul" in name:
                self._simulate(name, stream, stream.floats(), pair_mask)
            else:
                self._simulate(name, stream, stream.floats(), pair_mask, chunk_size)
        if isinstance(self.pair_transition, IntegerTransition):
            self.pair_transition.add_to_pair(stream, self.codecs["pair_transition"])
        else:
            self._simulate("pair_transition", stream, stream.floats())
        return single, pair if isinstance(pair, PairStream) else stream.floats()

    def _update_single(
        self,
        single: Float[Tensor, "b l s"],
        pair: PairStream,
        valid: Bool[Tensor, "b l"] | None,
        mask: Bool[Tensor, "b l"],
    ) -> None:
        integer_bias = isinstance(self.pair_to_bias, IntegerPairToBias)
        bias = self.pair_to_bias(pair if integer_bias else pair.floats())
        if isinstance(self.single_attn, IntegerSingleAttention):
            self.single_attn.add_to_(single, bias, valid)
        else:
            single += self.single_attn(self.single_norm(single), bias.to(single.dtype), mask)
        if isinstance(self.single_transition, IntegerTransition):
            self.single_transition.add_to_(single)
        else:
            single += self.single_transition(single)

    def _simulate(self, name: str, stream: PairStream, *inputs: Any) -> None:
        """Run a part as it is, and keep what comes of it."""
        update = self.get_submodule(name)(*inputs)
        stream.put(stream.floats() + update, self.codecs[name])
