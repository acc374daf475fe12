"""A linear layer's weight as int8 kernels take it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

__all__ = ["Int8Projection"]


class Int8Projection(NamedTuple):
    """Symmetric codes of a weight with their scales, one per output channel, and what is added.

    Attributes
    ----------
    weight : Tensor, shape=(n, k), dtype=int8
    scale : Tensor, shape=(n,)
    bias : Tensor, shape=(n,), optional
    weight_sum : Tensor of int32, shape=(n,), optional
        Sums of the rows of `weight`, which a zero point of the input needs; reckoned where they are not given.
    """

    weight: Int8[Tensor, "n k"]
    scale: Float[Tensor, " n"]
    bias: Float[Tensor, " n"] | None = None
    weight_sum: Integer[Tensor, " n"] | None = None

    def sums(self) -> Integer[Tensor, " n"]:
        """`weight_sum`, given or reckoned."""
        return self.weight.sum(1, dtype=torch.int32) if self.weight_sum is None else self.weight_sum

    def decoded(self) -> Float[Tensor, "n k"]:
        """The weight's values, float32."""
        return self.weight.float() * self.scale.float()[:, None]
