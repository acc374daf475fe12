"""Error messages on settings: where the setting is, its allowed values, its value, and the nearest known name."""

import reprlib
import types
import typing
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from protquant.errors import suggestion

__all__ = ["message", "short"]

_NAMES: dict[Any, str] = {bool: "true or false", str: "text", tuple: "a list", list: "a list", dict: "a mapping"}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def short(value: object) -> str:
    """Return the `repr` of a value; long ones are shortened in the middle."""
    return _SHORT.repr(value)


def message(model: type[BaseModel], error: ErrorDetails, where: str) -> str:
    """Return the message for an error of pydantic.

    Parameters
    ----------
    model : type
        The pydantic model whose fields are the settings.
    where : str
        Beginning of the message.
    """
    place, value = [str(part) for part in error["loc"]], error["input"]
    path = ".".join(part for part in place if part != "[key]")
    cause = error.get("ctx", {}).get("error")
    if error["type"] == "extra_forbidden":
        return f"{where} has no setting {path!r}; {suggestion(path, model.model_fields)}"
    if isinstance(cause, Exception):  # raised by a nested value, with its own message
        return f"{where}: {cause}" if str(cause).startswith(path) else f"{where}: {path}: {cause}"
    if place[-1] == "[key]":
        known = _choices(typing.get_args(model.model_fields[place[0]].annotation)[0])
        unknown = f"unknown name {value!r}; {suggestion(str(value), known)}"
        return f"{where}: {place[0]}: " + (unknown if known else f"names are text, not {short(value)}")
    if len(place) > 1 or error["type"] == "finite_number":
        return f"{where}: {path} cannot be {short(value)}: {error['msg']}"
    field = model.model_fields[path]
    if field.description:
        return f"{where}: {path} is {field.description}, not {short(value)}"
    return f"{where}: {path} {_refusal(field.annotation, field.metadata, value)}"


def _refusal(hint: Any, metadata: list[Any], value: object) -> str:
    leaves = _leaves(hint, metadata)
    if choices := [choice for leaf, _ in leaves for choice in _choices(leaf)]:
        near = suggestion(value, choices) if isinstance(value, str) else ""
        return f"{short(value)} is none of {', '.join(choices)}" + (f"; {near}" if near.startswith("did") else "")
    expected = " or ".join(_expected(leaf, bounds) for leaf, bounds in leaves)
    is_number = any(leaf in (int, float) for leaf, _ in leaves)
    return f"{short(value)} is not {expected}" if is_number else f"is {expected}, not {short(value)}"


def _leaves(hint: Any, metadata: list[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Return the types of a union, or the single type, each with its bounds."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _leaves(arguments[0], [each for field in arguments[1:] for each in getattr(field, "metadata", [field])])
    if origin in (typing.Union, types.UnionType):
        return [leaf for each in arguments for leaf in _leaves(each, metadata)]
    names = ("ge", "gt", "le", "lt")
    return [(hint, {name: getattr(each, name) for each in metadata for name in names if hasattr(each, name)})]


def _choices(hint: Any) -> tuple[str, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _expected(hint: Any, bounds: dict[str, Any]) -> str:
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if hint is int:
        text = "a positive integer" if low == 1 else "an integer" if low is None else f"an integer of at least {low}"
        return text if high is None else f"an integer from {low} to {high}"
    if hint is float and low is not None:
        if high is None:
            return f"{'at least' if 'ge' in bounds else 'above'} {low:g}"
        return f"in {'[' if 'ge' in bounds else '('}{low:g}, {high:g}{']' if 'le' in bounds else ')'}"
    if hint is type(None):
        return "null"
    return "a number" if hint is float else _NAMES.get(typing.get_origin(hint) or hint, str(hint))
