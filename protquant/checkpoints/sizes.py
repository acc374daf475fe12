"""The kind and the sizes of a model as plain data."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from protquant.files.plain_data import typed
from protquant.models.protocol import ProteinModel
from protquant.models.registry import MODELS, kind_of

__all__ = ["read_sizes", "sizes_of"]


def sizes_of(model: ProteinModel) -> dict[str, Any]:
    """Return `kind` and `config` of a model, as plain data for JSON and `read_sizes`."""
    return {"kind": kind_of(model.config), "config": asdict(model.config)}


def read_sizes(kind: str, config: Mapping[str, Any]) -> Any:
    """Return the sizes of a model of a kind, from plain data.

    Raises
    ------
    ValueError
        If there is no such kind, or the sizes are not valid.
    """
    if kind not in MODELS:
        raise ValueError(f"unknown kind of model {kind!r}")
    return typed(MODELS[kind].config_type, config)
