"""Elementwise functions of many passes, applied block by block."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["blockwise"]

# So many values fit in a core's cache with their intermediates; a dozen passes over them stay there.
_BLOCK = 2**16


def blockwise(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function`, which is elementwise, of the float32 values of `x`, in its shape and dtype."""
    flat = x.reshape(-1)
    if x.device.type != "cpu" or flat.numel() <= _BLOCK or (torch.is_grad_enabled() and x.requires_grad):
        return function(x.float()).to(x.dtype)
    out = torch.empty_like(flat)
    for part, result in zip(torch.split(flat, _BLOCK), torch.split(out, _BLOCK), strict=True):
        result.copy_(function(part.float()))
    return out.view(x.shape)
