"""Replace modules of a model by their quantized twins."""

from collections.abc import Mapping

from torch import nn

from protquant.quant.formats import Codes, Quantizer, StaticQuantizer
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear, QuantizedRotatedNorm
from protquant.quant.rotations import RotatedNorm

__all__ = ["replace_modules"]


def replace_modules(
    model: nn.Module, fitted: Mapping[str, Quantizer], codes: Mapping[str, Codes] | None = None
) -> None:
    """Replace the modules that have sites in `fitted` by twins with these quantizers.

    Parameters
    ----------
    codes : mapping, optional
        Codes of weights of linear layers, by site; other weights are rounded to nearest.
    """
    known = codes or {}

    def activation(name: str) -> ActivationQuantizer | None:
        return ActivationQuantizer(name, fitted[name]) if name in fitted else None

    def weight(name: str) -> StaticQuantizer | None:
        quantizer = fitted.get(name)
        assert quantizer is None or isinstance(quantizer, StaticQuantizer)
        return quantizer

    twins: dict[int, nn.Module] = {}
    for path, module in model.named_modules():
        twin: nn.Module | None = None
        if path in fitted:
            twin = activation(path)
        elif f"{path}.weight" in fitted or f"{path}.input" in fitted:
            if isinstance(module, nn.Linear):
                twin = QuantizedLinear(
                    module, weight(f"{path}.weight"), activation(f"{path}.input"), known.get(f"{path}.weight")
                )
            elif isinstance(module, RotatedNorm):
                twin = QuantizedRotatedNorm(module, activation(f"{path}.input"))
            elif isinstance(module, nn.LayerNorm):
                twin = QuantizedLayerNorm(module, weight(f"{path}.weight"), activation(f"{path}.input"))
        if twin is not None:
            twins[id(module)] = twin.train(module.training)
    # A module at several places has sites at the first one only, but is replaced at every place.
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in twins:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, twins[id(module)])
