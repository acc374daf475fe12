"""The types that formats and steps declare for their settings, against what recipes give."""

import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from protquant.errors import ProtquantError
from protquant.files.plain_data import typed

__all__ = ["make"]

T = TypeVar("T")


def make(where: str, cls: type[T], settings: Mapping[str, Any]) -> T:
    """Return the value of a dataclass, after it has checked its settings, and their types have been checked here.

    Parameters
    ----------
    where : str
        Begins messages.
    settings : mapping
        Of a list of texts, one text may stand by itself.

    Raises
    ------
    ProtquantError
        Names the setting that cannot be what it is.
    """
    try:
        made = cls(**settings)
    except ProtquantError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        _check(where, cls, settings)
        raise ProtquantError(f"{where}: {error}") from error
    _check(where, cls, settings)
    return made


def _check(where: str, cls: type, settings: Mapping[str, Any]) -> None:
    try:
        hints = _hints(cls)
    except NameError as error:
        raise ProtquantError(
            f"{where}: {cls.__name__} declares its settings by a name that is not there when it runs ({error});"
            " import it outside of TYPE_CHECKING"
        ) from error
    for key, value in settings.items():
        hint = hints[key]
        is_one_of_list = isinstance(value, str) and typing.get_origin(hint) is tuple
        try:
            typed(hint, [value] if is_one_of_list else value)
        except ValueError as error:
            what = "true or false" if hint is bool else getattr(hint, "__name__", str(hint).replace("typing.", ""))
            raise ProtquantError(f"{where}: {key} is {what}, not {value!r} ({error})") from None


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)
