"""Errors that the user can correct: the message says what was wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["ProtquantError", "suggestion"]


class ProtquantError(ValueError):
    """Base of all errors about input, files and settings; a command prints the message and exits with code 2."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: similar known words, or else the first 8 known words."""
    known = list(known)
    close = get_close_matches(word, known, n=3, cutoff=0.4)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
