"""Fingerprints of settings: equal settings give equal digits, whatever their order and their number types."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["fingerprint", "json_value"]


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
