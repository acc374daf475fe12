"""State of modules: parameters, buffers, children, and plain attributes, which are converted to JSON and back."""

import math
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from protquant.files.plain_data import typed
from protquant.quant.formats import Format

__all__ = ["Parts", "parts_of", "read_settings", "settings_of"]

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_known_hints: dict[type[nn.Module], dict[str, Any]] = {}


class Parts(NamedTuple):
    """State of a module without that of its children. Entries may be None; derived buffers are left out."""

    parameters: dict[str, nn.Parameter | None]
    buffers: dict[str, Tensor | None]
    modules: dict[str, nn.Module | None]
    attributes: dict[str, Any]
    has_hooks: bool


def parts_of(module: nn.Module) -> Parts:
    """Return the state of a module. The iterators of torch leave out entries that are None."""
    state = vars(module)
    derived = state["_non_persistent_buffers_set"]
    return Parts(
        dict(state["_parameters"]),
        {name: buffer for name, buffer in state["_buffers"].items() if name not in derived},
        dict(state["_modules"]),
        {name: value for name, value in state.items() if name not in _OF_EVERY_MODULE and not name.startswith("_")},
        bool(state["_forward_hooks"] or state["_forward_pre_hooks"]),
    )


def settings_of(module: nn.Module) -> dict[str, Any]:
    """Return the plain attributes of a module, ready for JSON.

    Raises
    ------
    ValueError
        For an attribute that its class does not annotate, or whose value is not plain or not of the annotated type.
    """
    hints = _hints(type(module))
    settings = {}
    for name, value in parts_of(module).attributes.items():
        if name not in hints:
            raise ValueError(
                f"{type(module).__name__}.{name} is not annotated in the body of its class (protquant.quant.storable)"
            )
        settings[name] = _to_plain(value)
        try:
            same = _from_plain(settings[name], hints[name]) == value
        except ValueError:
            same = False
        if not same:
            raise ValueError(f"{type(module).__name__}.{name} is {value!r}, which cannot be saved as {hints[name]}")
    return settings


def read_settings(cls: type[nn.Module], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the typed values of settings from `settings_of`.

    Raises
    ------
    ValueError
        For a setting that the class does not have, or a value that is not of its type.
    """
    hints = _hints(cls)
    values = {}
    for name, value in settings.items():
        if name not in hints or name.startswith("_") or name in _OF_EVERY_MODULE:
            raise ValueError(f"{cls.__name__} has no setting {name!r}")
        try:
            values[name] = _from_plain(value, hints[name])
        except ValueError:
            raise ValueError(f"setting {name!r} of {cls.__name__} cannot be {value!r}") from None
    return values


def _hints(cls: type[nn.Module]) -> dict[str, Any]:
    # Cached: it takes a millisecond, and a model has a thousand modules.
    if cls not in _known_hints:
        _known_hints[cls] = typing.get_type_hints(cls)
    return _known_hints[cls]


def _to_plain(value: Any) -> Any:
    if isinstance(value, Format):
        return {key: _to_plain(each) for key, each in value.to_config().items()}
    if isinstance(value, tuple):
        return [_to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON cannot represent infinity
    return value


def _from_plain(value: Any, hint: Any) -> Any:
    """Return plain data as a value of type `hint`, or raise ValueError."""
    # The other type may be a module, for which None is the only setting.
    if value is None and type(None) in typing.get_args(hint):
        return None
    try:
        return typed(hint, value)
    except ValueError:
        if (infinite := _with_infinities(value)) == value:
            raise
        return typed(hint, infinite)


def _with_infinities(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_infinities(each) for each in value]
    return float(value) if value in ("inf", "-inf") else value
