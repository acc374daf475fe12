"""The kind and the sizes of a model as plain data, and an empty model of them."""

import typing
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

from protquant.models import ESM2, ESM2Config, ESMFold, ESMFoldConfig

__all__ = ["empty_model", "sizes_of"]

_Config = TypeVar("_Config")


def sizes_of(model: ESM2 | ESMFold) -> dict[str, Any]:
    """`kind` and `config` of a model, which `empty_model` takes when JSON has been through them."""
    return {"kind": "esmfold" if isinstance(model, ESMFold) else "esm2", "config": asdict(model.config)}


def empty_model(kind: str, config: Mapping[str, Any]) -> ESM2 | ESMFold:
    """Model of a kind and sizes; its weights are what the default device makes them."""
    if kind == "esmfold":
        return ESMFold(_from_json(ESMFoldConfig, config))
    if kind == "esm2":
        return ESM2(_from_json(ESM2Config, config))
    raise ValueError(f"unknown kind of model {kind!r}")


def _from_json(kind: type[_Config], values: Mapping[str, Any]) -> _Config:
    """A configuration from the plain values that `asdict` and JSON made of it."""
    hints = typing.get_type_hints(kind)

    def plain_to_typed(name: str, value: Any) -> Any:
        hint = hints.get(name)
        if isinstance(hint, type) and is_dataclass(hint):
            return _from_json(hint, value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: plain_to_typed(name, value) for name, value in values.items()})
