"""Random weights that keep activations as large as trained ones do: time does not depend on what weights say."""

import torch
from torch import Tensor, nn

__all__ = ["random_parameter", "randomize"]

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
        parameter.copy_(random_parameter(model, name, generator))


def random_parameter(model: nn.Module, name: str, generator: torch.Generator) -> Tensor:
    """Return values for one parameter, in float32 on the CPU, as `randomize` fills it in.

    Parameters
    ----------
    model : nn.Module
        Only its sizes are read, so that it can be on the meta device.
    name : str
        Of the parameter, as in `model.named_parameters()`.
    generator : torch.Generator
        Where the values are drawn from.
    """
    owner, parameter = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name)
    noise = torch.randn(parameter.shape, generator=generator)
    if isinstance(owner, nn.LayerNorm):
        noise = _GAIN * noise + (1.0 if name.endswith("weight") else 0.0)
    elif isinstance(owner, nn.Linear) and parameter.ndim == 2:
        noise *= parameter.shape[1] ** -0.5
    elif parameter.ndim == 1:
        noise *= _BIAS
    return noise
