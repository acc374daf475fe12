"""Fingerprints of settings: equal settings give equal digits, in any order and with any number types."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # torch takes seconds to import, and most callers do not need it
    from torch import Tensor

__all__ = ["fingerprint", "json_value", "weights_fingerprint"]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of settings, independent of the order of keys.

    Parameters
    ----------
    settings : mapping of str to JSON-like values
        Everything that the result depends on: model and its hash, recipe, options, sequence. Besides JSON types,
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
    """Return the SHA-256 of facts and tensors. It does not depend on the file or number type that stores the weights.

    Parameters
    ----------
    facts : object
        Values of JSON types: sizes of a model, or its modules and their settings.
    tensors : mapping of str to Tensor
        Floating-point tensors are hashed as float32, others unchanged. Tensors are accessed one by one, in the order of
        their names, so that the mapping can read each from a file.

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
    """Convert a value to JSON types: numpy scalars, paths, tuples and dataclasses are converted.

    Parameters
    ----------
    value : object
        The value.
    keep_nan : bool, optional
        Keep NaN and infinities, which are not valid JSON, instead of making them None.

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
