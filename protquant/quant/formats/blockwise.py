"""Apply an elementwise function of many passes block by block, to stay in the cache."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["blockwise"]

# This many values and their intermediates fit into the cache of a core.
_BLOCK = 2**16


def blockwise(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the elementwise `function` of the float32 values of `x`, in the shape and dtype of `x`."""
    flat = x.reshape(-1)
    if x.device.type != "cpu" or flat.numel() <= _BLOCK or (torch.is_grad_enabled() and x.requires_grad):
        return function(x.float()).to(x.dtype)
    out = torch.empty_like(flat)
    for part, result in zip(torch.split(flat, _BLOCK), torch.split(out, _BLOCK), strict=True):
        result.copy_(function(part.float()))
    return out.view(x.shape)
