"""The kind and the sizes of a model as plain data, and an empty model of them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from protquant.files.plain_data import typed
from protquant.models import ESM2, ESM2Config, ESMFold, ESMFoldConfig

__all__ = ["empty_model", "read_sizes", "sizes_of"]


def sizes_of(model: ESM2 | ESMFold) -> dict[str, Any]:
    """`kind` and `config` of a model, which `empty_model` takes when JSON has been through them."""
    return {"kind": "esmfold" if isinstance(model, ESMFold) else "esm2", "config": asdict(model.config)}


def read_sizes(kind: str, config: Mapping[str, Any]) -> ESM2Config | ESMFoldConfig:
    """Return the sizes of a model of a kind, from plain data.

    Raises
    ------
    ValueError
        If there is no such kind, or the sizes are not those of a model.
    """
    if kind == "esmfold":
        return typed(ESMFoldConfig, config)
    if kind == "esm2":
        return typed(ESM2Config, config)
    raise ValueError(f"unknown kind of model {kind!r}")


def empty_model(sizes: ESM2Config | ESMFoldConfig) -> ESM2 | ESMFold:
    """Return a model of some sizes; its weights are what the default device makes them."""
    return ESMFold(sizes) if isinstance(sizes, ESMFoldConfig) else ESM2(sizes)
