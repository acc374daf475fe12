"""Modules of a quantized checkpoint: name of the class, settings, tensors and children.

`protquant.quant.storable` defines the allowed classes and their state.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from protquant.checkpoints.settings import parts_of, read_settings, settings_of
from protquant.checkpoints.stored_tensors import TensorReader, TensorWriter
from protquant.quant.modules import CodedWeight, QuantizedLayerNorm, QuantizedLinear
from protquant.quant.storable import STORABLE, Storable, storable_name

__all__ = ["describe_module", "rebuild_module"]

_KEYS = {"class", "settings", "buffers", "parameters", "modules"}


def describe_module(module: nn.Module, path: str, writer: TensorWriter) -> dict[str, Any]:
    """Return a description of a module as plain data for `rebuild_module`; its tensors go to `writer`.

    Raises
    ------
    ValueError
        If the class is not in `STORABLE`, or the module contains something that cannot be saved.
    """
    name = storable_name(type(module))
    if STORABLE.get(name) is not type(module):
        raise ValueError(
            f"a {name} cannot be saved: modules that steps put into a model inherit from"
            " protquant.quant.storable.Storable"
        )
    parts = parts_of(module)
    if parts.has_hooks:
        raise ValueError(f"this {name} has a hook, which cannot be saved")
    parameters = {
        key: None if tensor is None else writer.put(f"{path}.{key}", tensor.detach())
        for key, tensor in parts.parameters.items()
    }
    if isinstance(module, CodedWeight) and module.packed_codes is not None:
        parameters["weight"] = writer.put_codes(f"{path}.weight", module.packed_codes)
    node = {
        "class": name,
        "settings": settings_of(module),
        "parameters": parameters,
        "buffers": {
            key: None if buffer is None else writer.put(f"{path}.{key}", buffer)
            for key, buffer in parts.buffers.items()
        },
        "modules": {
            key: None if child is None else describe_module(child, f"{path}.{key}", writer)
            for key, child in parts.modules.items()
        },
    }
    return {key: value for key, value in node.items() if value}


def rebuild_module(node: Mapping[str, Any], path: str, reader: TensorReader) -> nn.Module:
    """Return the module that `describe_module` described.

    Raises
    ------
    ValueError
        For an unknown class or setting, and for tensors that are missing or do not fit.
    """
    if unknown := node.keys() - _KEYS:
        raise ValueError(f"{path}: unknown entry {min(unknown)!r}")
    cls = STORABLE.get(node["class"])
    if cls is None or inspect.isabstract(cls):
        raise ValueError(
            f"{path}: unknown class {node['class']!r}; install a newer protquant, or import the package that defines it"
        )
    try:
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        for key, value in _settings(cls, node, path).items():
            setattr(module, key, value)
        for key, child in node.get("modules", {}).items():
            rebuilt = None if child is None else rebuild_module(child, f"{path}.{key}", reader)
            module.register_module(key, rebuilt)
        for key, entry in node.get("buffers", {}).items():
            module.register_buffer(key, None if entry is None else reader.get(f"{path}.{key}", entry))
        for key, entry in node.get("parameters", {}).items():
            _put_parameter(module, key, f"{path}.{key}", entry, reader)
        if isinstance(module, Storable):
            module.restored()
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: this {node['class']} cannot be put together ({error})") from error
    _check(module, path)
    return module


def _settings(cls: type[nn.Module], node: Mapping[str, Any], path: str) -> dict[str, Any]:
    try:
        return read_settings(cls, node.get("settings", {}))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _put_parameter(
    module: nn.Module, key: str, name: str, entry: Mapping[str, Any] | None, reader: TensorReader
) -> None:
    if entry is not None and "pieces" in entry:
        if key != "weight" or not isinstance(module, CodedWeight) or module.weight_quantizer is None:
            raise ValueError(f"{name} has codes, but no quantizer to decode them")
        module.hold_codes(reader.get_codes(name, entry))
        return
    tensor = None if entry is None else reader.get(name, entry)
    parameter = None if tensor is None else nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
    if key == "weight" and isinstance(module, CodedWeight):
        module.hold_float(parameter)
    else:
        module.register_parameter(key, parameter)


def _check(module: nn.Module, path: str) -> None:
    """Refuse weights whose shapes do not match the settings of the module."""
    expected: dict[str, tuple[int, ...]] = {}
    if isinstance(module, nn.Linear | QuantizedLinear):
        expected = {"weight": (module.out_features, module.in_features), "bias": (module.out_features,)}
    elif isinstance(module, nn.LayerNorm | QuantizedLayerNorm):
        expected = dict.fromkeys(("weight", "bias"), tuple(module.normalized_shape))
    for name, shape in expected.items():
        codes = module.packed_codes if name == "weight" and isinstance(module, CodedWeight) else None
        tensor = codes or getattr(module, name)
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{path}.{name} has shape {tuple(tensor.shape)} and should be {shape}")
        if codes is not None and codes.packed.numel() != codes.expected_bytes:
            raise ValueError(
                f"{path}.{name} has {codes.packed.numel()} bytes of codes and should have {codes.expected_bytes}"
            )
