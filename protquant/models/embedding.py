"""Creation of embedding tables."""

import torch
from torch import nn

__all__ = ["embedding"]


def embedding(count: int, dim: int, padding_idx: int | None = None) -> nn.Embedding:
    """Return an `nn.Embedding` of `count` vectors of `dim` channels; the vector of `padding_idx` is always zero.

    On the meta device, no random values are drawn: torch would import its compiler, which takes 2 s and 100 MiB.
    """
    weight = torch.empty(count, dim)
    if not weight.is_meta:
        nn.init.normal_(weight)
        if padding_idx is not None:
            weight[padding_idx] = 0.0
    return nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=padding_idx)
