"""Errors that are the user's to mend: the message says what was wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["ProtquantError", "suggestion"]


class ProtquantError(ValueError):
    """Base of all errors about input, files and settings; commands print it and exit with code 2."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: those that are near to it, or else the first that are known."""
    known = list(known)
    close = get_close_matches(word, known, n=3, cutoff=0.4)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
