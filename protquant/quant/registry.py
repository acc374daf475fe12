"""Registries: classes by the names that files use, with one class for each name."""

from collections.abc import MutableMapping
from types import FunctionType
from typing import Any

from protquant.errors import ProtquantError

__all__ = ["enter"]


def enter(registry: MutableMapping[str, Any], name: str, cls: type, kind: str) -> None:
    """Register a class under a name.

    The same definition may be registered twice, as happens when a notebook cell runs a second time.

    Raises
    ------
    ProtquantError
        If another class has the name; the message names both classes and their files.
    """
    known = registry.get(name)
    if known is not None and _place(known) != _place(cls):
        raise ProtquantError(
            f"{kind} {name!r} is registered twice: by {_place(known)} and by {_place(cls)}; give one another name"
        )
    registry[name] = cls


def _place(cls: type) -> str:
    codes = [value.__code__ for value in vars(cls).values() if isinstance(value, FunctionType)]
    files = [code.co_filename for code in codes if not code.co_filename.startswith("<")]
    return f"{cls.__module__}.{cls.__qualname__}" + (f" ({files[0]})" if files else "")
