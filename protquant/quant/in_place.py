"""Quantize sites of a float model in place, and restore the model afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from protquant.quant.formats import Quantizer
from protquant.quant.modules import ActivationQuantizer
from protquant.quant.transforms import TransformedLinear
from protquant.sites import Site

__all__ = ["quantized_in_place"]


@contextmanager
def quantized_in_place(model: nn.Module, quantizers: Mapping[Site, Quantizer]) -> Iterator[None]:
    """Let `model` compute as if it had quantized twins at these sites, inside of the context.

    The model is not copied, and no module is replaced: weights are exchanged and restored, and hooks quantize the
    activations.
    """
    with ExitStack() as stack:
        for site, quantizer in quantizers.items():
            module = model.get_submodule(site.module)
            if site.is_weight:
                weight = module.weight
                assert isinstance(weight, nn.Parameter)
                stack.callback(setattr, weight, "data", weight.data)
                weight.data = quantizer(weight.detach())
            else:
                stack.enter_context(_removing(_quantize_input(module, ActivationQuantizer(site.name, quantizer))))
        yield


@contextmanager
def _removing(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _quantize_input(module: nn.Module, quantizer: ActivationQuantizer) -> RemovableHandle:
    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return quantizer(inputs[0]), *inputs[1:]

    def after(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        y: Tensor = quantizer(output)
        return y

    if isinstance(module, TransformedLinear):
        return module.transforms.register_forward_hook(after)
    return module.register_forward_pre_hook(before)
