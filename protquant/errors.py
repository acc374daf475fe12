"""Errors that are the user's to mend: the message says what was wrong, where, and what to do."""

__all__ = ["ProtquantError"]


class ProtquantError(ValueError):
    """Base of all errors about input, files and settings; commands print it and exit with code 2."""
