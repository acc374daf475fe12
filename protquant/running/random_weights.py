"""Random weights with activations of realistic size, for measuring time, which does not depend on trained values."""

import torch
from torch import Tensor, nn

__all__ = ["random_parameter", "randomize"]

_BIAS, _GAIN = 0.1, 0.1


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 0) -> None:
    """Fill all parameters in place: matrices by LeCun's rule, gains near 1, biases near but not equal to 0.

    Released code initializes output projections and gates with zero, so an untrained block has no effect. Here every
    part has one, so that results can be compared too.

    Parameters
    ----------
    model : nn.Module
        Model of a floating-point type, on any device.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(random_parameter(model, name, generator))


def random_parameter(model: nn.Module, name: str, generator: torch.Generator) -> Tensor:
    """Return the values that `randomize` gives one parameter, in float32 on the CPU.

    Parameters
    ----------
    model : nn.Module
        Model with this parameter; it may be on the meta device, as only its sizes are read.
    name : str
        Name of the parameter, as in `model.named_parameters()`.
    generator : torch.Generator
        Source of the random numbers.
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
