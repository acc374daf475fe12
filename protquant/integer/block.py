"""A block of the folding trunk on integers."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.operands import NoIntegerKernel
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
            except NoIntegerKernel as reason:
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

    next_inputs = staticmethod(FoldingBlock.next_inputs)

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        mask: Bool[Tensor, "b l"],
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"]]:
        """`chunk_size` is for parts that are not on integers; the others choose their own."""
        single, pair = single.contiguous(), pair.contiguous()
        whole = bool(mask.all())
        pair_mask = mask[:, :, None] & mask[:, None, :]
        bias = self.pair_to_bias(pair)
        if isinstance(self.single_attn, IntegerSingleAttention):
            self.single_attn.add_to_(single, bias, None if whole else mask)
        else:
            single += self.single_attn(self.single_norm(single), bias.to(single.dtype), mask)
        if isinstance(self.single_transition, IntegerTransition):
            self.single_transition.add_to_(single)
        else:
            single += self.single_transition(single)
        if isinstance(self.single_to_pair, IntegerSingleToPair):
            self.single_to_pair.add_to_(single, pair)
        else:
            pair += self.single_to_pair(single)
        valid = None if whole else pair_mask
        for multiplication in (self.tri_mul_out, self.tri_mul_in):
            if isinstance(multiplication, IntegerTriangleMultiplication):
                multiplication.add_to_(pair, valid)
            else:
                pair += multiplication(pair, pair_mask)
        for attention in (self.tri_attn_start, self.tri_attn_end):
            if isinstance(attention, IntegerTriangleAttention):
                attention.add_to_(pair, valid)
            else:
                pair += attention(pair, pair_mask, chunk_size)
        if isinstance(self.pair_transition, IntegerTransition):
            self.pair_transition.add_to_(pair)
        else:
            pair += self.pair_transition(pair)
        return single, pair
