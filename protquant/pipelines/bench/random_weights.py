"""Random weights that keep activations as large as trained ones do: time does not depend on what weights say."""

import torch
from torch import nn

__all__ = ["randomize"]

_BIAS, _GAIN = 0.1, 0.1


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 0) -> None:
    """Fill all parameters, in place: matrices by LeCun's rule, gains about 1, biases about 0, none of them zero.

    Released code starts output projections and gates at zero, so that a block does nothing until it is trained; here
    every part does something, so that results can be compared too.

    Parameters
    ----------
    model : nn.Module
        In a floating-point type, on any device.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        noise = torch.randn(parameter.shape, generator=generator)
        if isinstance(owner, nn.LayerNorm):
            noise = _GAIN * noise + (1.0 if name.endswith("weight") else 0.0)
        elif isinstance(owner, nn.Linear) and parameter.ndim == 2:
            noise *= parameter.shape[1] ** -0.5
        elif parameter.ndim == 1:
            noise *= _BIAS
        parameter.copy_(noise)
