"""Convert a quantized model, which simulates, to a model that runs on integers."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.integer.block import IntegerFoldingBlock
from protquant.integer.blocks import IntegerBlocks
from protquant.integer.language_model import IntegerESM2
from protquant.integer.linear import IntegerLinear, linear_twin
from protquant.integer.part import SupportRow
from protquant.integer.recording import Recorder
from protquant.integer.support import Support, prepared_layers
from protquant.kernels.backend import Backend
from protquant.kernels.dispatch import choose_backend
from protquant.models import ESM2, add_to_lineage
from protquant.models.trunk import FoldingBlock, FoldingBlocks
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear

__all__ = ["to_integer"]

_Model = TypeVar("_Model", bound=nn.Module)
_TWINS = IntegerESM2, IntegerFoldingBlock


def to_integer(model: _Model, backend: str | Backend = "auto", *, inplace: bool = False) -> tuple[_Model, Support]:
    """Convert a quantized model so that it runs on integers.

    Linear layers whose weight and input have integer codes multiply these codes. Blocks of the folding trunk and layers
    of the language model run on codes as a whole, and update their inputs in place. Parts that have no integer kernel
    stay simulated, and the support names them.

    Parameters
    ----------
    model : nn.Module
        Result of `quantize`, or a quantized checkpoint, on its final device: the result cannot be moved.
    backend : str or Backend
        `auto`, `reference`, `cpu` or `triton`.
    inplace : bool
        Whether to convert without a copy, to save memory; `model` cannot be used afterwards.

    Returns
    -------
    nn.Module
        Model with the same interface.
    Support
        What each part runs on.

    Raises
    ------
    ProtquantError
        If the model is not quantized, or runs on integers already, if a folding trunk is not in float32, or if the
        backend does not run here.
    """
    if any(isinstance(m, IntegerLinear | IntegerFoldingBlock | IntegerESM2) for m in model.modules()):
        raise ProtquantError(
            "the model runs on integers already; quantize with execution='simulate' for another backend"
        )
    if not any(isinstance(m, QuantizedLinear | QuantizedLayerNorm | ActivationQuantizer) for m in model.modules()):
        raise ProtquantError("the model is not quantized: quantize it by a recipe, then it can run on integers")
    for path, block in _of_type(model, FoldingBlock):
        other = {str(p.dtype).removeprefix("torch.") for p in block.parameters() if p.dtype != torch.float32}
        if other:
            raise ProtquantError(
                f"{path or 'the block'} is in {min(other)}: beside integers a folding trunk has floats of 32 bits; "
                "load the model so (--dtype float32)"
            )
    if isinstance(backend, str):
        parameter = next(model.parameters(), None)
        if parameter is None:
            raise ProtquantError("the model has no parameters")
        try:
            backend = choose_backend(backend, parameter.device)
        except ValueError as error:
            raise ProtquantError(str(error)) from None
    if not inplace:
        model = copy.deepcopy(model)
    if isinstance(model, ESM2):
        twin = IntegerESM2(model, backend).eval()
        return twin, _support(twin, backend)  # type: ignore[return-value]
    if not isinstance(model, FoldingBlock | FoldingBlocks):
        return model.eval(), _convert(model, backend)
    # Wrap the model in a module, so that it can be replaced like its submodules.
    holder = nn.ModuleDict({"block": model})
    support = _convert(holder, backend)
    return holder["block"], support  # type: ignore[return-value]


def _convert(model: nn.Module, backend: Backend) -> Support:
    """Replace submodules by their twins, if they have one."""
    for path, language_model in _of_type(model, ESM2):
        # Keep float32 for the input of a trunk: bfloat16 costs 0.005 angstrom, and the trunk takes most of the time.
        model.set_submodule(path, IntegerESM2(language_model, backend, path, torch.float32))
    for path, block in _of_type(model, FoldingBlock):
        model.set_submodule(path, IntegerFoldingBlock(block, backend, path))
    for path, blocks in _of_type(model, FoldingBlocks):
        model.set_submodule(path, IntegerBlocks(blocks, Recorder(backend.calls)))
    inside = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, _TWINS))
    rows = []
    for path, layer in _of_type(model, QuantizedLinear):
        if not path.startswith(inside):
            linear, row = linear_twin(layer, backend, path)
            model.set_submodule(path, linear)
            rows.append(row)
    return _support(model, backend, rows)


def _support(model: nn.Module, backend: Backend, linear_rows: Sequence[SupportRow] = ()) -> Support:
    """Return the support of a converted model: the rows of its twins, and `linear_rows` of other linear layers."""
    rows = [row for kind in _TWINS for module in model.modules() if isinstance(module, kind) for row in module.rows]
    layers = prepared_layers(model)
    support = Support(
        [*rows, *linear_rows],
        backend,
        weight_bytes=sum(layer.nbytes for layer in layers),
        weight_elements=sum(layer.weight.out_features * layer.weight.in_features for layer in layers),
    )
    add_to_lineage(model, execution=support.ran, kernels=support.kernels)
    return support


def _of_type(model: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    # Store paths, not modules: a reference would keep a replaced module in memory.
    for path in [path for path, module in model.named_modules() if isinstance(module, kind)]:
        yield path, model.get_submodule(path)
