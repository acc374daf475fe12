"""Patterns of names: globs, or regular expressions that begin with `re:`; they match whole names."""

import fnmatch
from collections.abc import Iterable
from typing import Annotated

import regex
from pydantic import AfterValidator

from protquant.errors import ProtquantError

__all__ = ["Pattern", "PatternText", "matches_any"]

_REGEX = "re:"
_SECONDS = 1.0
"""Time limit of one match: some regular expressions backtrack exponentially, ordinary ones take microseconds."""


class Pattern:
    """A glob or a regular expression of whole names.

    Parameters
    ----------
    where : str
        Begins messages.
    pattern : str
        Text of the pattern.

    Raises
    ------
    ProtquantError
        If it is not a valid regular expression.
    """

    def __init__(self, where: str, pattern: str) -> None:
        self._where, self._pattern = where, pattern
        try:
            self._compiled = regex.compile(
                pattern[len(_REGEX) :] if pattern.startswith(_REGEX) else fnmatch.translate(pattern)
            )
        except (regex.error, OverflowError, RecursionError) as error:
            raise ProtquantError(f"{where}: {pattern!r} is no regular expression: {error}") from None

    def fullmatch(self, name: str) -> bool:
        """Return whether the pattern matches the whole of `name`.

        Raises
        ------
        ProtquantError
            If matching takes more than a second.
        """
        try:
            return self._compiled.fullmatch(name, timeout=_SECONDS) is not None
        except TimeoutError:
            raise ProtquantError(
                f"{self._where}: {self._pattern!r} takes more than {_SECONDS:g} s to be compared with {name!r};"
                " write it without a repetition inside a repetition"
            ) from None


def _checked(pattern: str) -> str:
    Pattern("pattern", pattern)
    return pattern


PatternText = Annotated[str, AfterValidator(_checked)]
"""The text of a pattern, as a setting."""


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Return whether any of the patterns matches `name`."""
    return any(Pattern(name, pattern).fullmatch(name) for pattern in patterns)
