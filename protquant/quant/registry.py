"""Classes by the names that files call them: a name has one class."""

from collections.abc import MutableMapping
from types import FunctionType
from typing import Any

from protquant.errors import ProtquantError

__all__ = ["enter"]


def enter(registry: MutableMapping[str, Any], name: str, cls: type, kind: str) -> None:
    """Put a class into a registry under a name.

    The same definition may be entered twice, as a cell of a notebook that runs again does.

    Raises
    ------
    ProtquantError
        If another class has the name: names both, and the files that they are in.
    """
    known = registry.get(name)
    if known is not None and _place(known) != _place(cls):
        raise ProtquantError(
            f"{kind} {name!r} is registered twice: by {_place(known)} and by {_place(cls)}; give one another name"
        )
    registry[name] = cls


def _place(cls: type) -> str:
    codes = [each.__code__ for each in vars(cls).values() if isinstance(each, FunctionType)]
    files = [code.co_filename for code in codes if not code.co_filename.startswith("<")]
    return f"{cls.__module__}.{cls.__qualname__}" + (f" ({files[0]})" if files else "")
