"""Patterns of names: globs, or regular expressions that begin with `re:`; they match whole names."""

import fnmatch
import re
from collections.abc import Iterable

from protquant.errors import ProtquantError

__all__ = ["compile_pattern", "matches_any"]

_REGEX = "re:"


def compile_pattern(where: str, pattern: str) -> re.Pattern[str]:
    """Pattern as a regular expression for `fullmatch`.

    Raises
    ------
    ProtquantError
        If it is none; `where` begins the message.
    """
    try:
        return re.compile(pattern[len(_REGEX) :] if pattern.startswith(_REGEX) else fnmatch.translate(pattern))
    except re.error as error:
        raise ProtquantError(f"{where}: {pattern!r} is no regular expression: {error}") from None


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches `name`."""
    return any(compile_pattern(name, pattern).fullmatch(name) for pattern in patterns)
