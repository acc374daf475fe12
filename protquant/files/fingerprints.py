"""Fingerprints of settings: equal settings give equal digits, whatever their order and their number types."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # torch takes seconds to import, and most callers do without it
    from torch import Tensor

__all__ = ["fingerprint", "json_value", "weights_fingerprint"]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, independent of the order of keys.

    Parameters
    ----------
    settings : mapping of str to JSON-like values
        Everything that the result depends on: model and its hash, recipe, options, sequence. Besides what JSON knows,
        tuples, paths, numpy scalars and dataclasses are accepted.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    TypeError
        If a value has no stable text form, or a key is not a string.
    """
    canonical = json.dumps(json_value(settings, keep_nan=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def weights_fingerprint(facts: Any, tensors: Mapping[str, "Tensor"]) -> str:
    """SHA-256 of facts and tensors: the same for the same weights, whatever file and number type they are stored in.

    Parameters
    ----------
    facts : object
        What JSON can hold: sizes of a model, or its modules and their settings.
    tensors : mapping of str to Tensor
        Floating-point numbers count as float32; others as they are. They are asked for one by one, in order of names,
        as they may be read from a file then.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        values = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(values.contiguous().flatten().numpy().data)
    return digest.hexdigest()


def json_value(value: Any, *, keep_nan: bool = False) -> Any:
    """A value as JSON can hold it: numpy scalars, paths, tuples and dataclasses by what they hold.

    Parameters
    ----------
    value : object
        The value.
    keep_nan : bool, optional
        Leave NaN and infinities, for which JSON has no word, instead of making them None.

    Returns
    -------
    None, str, bool, int, float, list or dict

    Raises
    ------
    TypeError
        If a value has no stable text form (a set, an array, an object), or a key is not a string.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if keep_nan or math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        if strange := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"keys must be strings, but {strange[0]!r} is a {type(strange[0]).__name__}")
        return {key: json_value(item, keep_nan=keep_nan) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, keep_nan=keep_nan) for item in value]
    raise TypeError(f"a {type(value).__name__} has no stable text form: {value!r}")
