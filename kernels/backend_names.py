"""Names of the backends; nothing here needs torch."""

from typing import Literal, get_args

__all__ = ["BACKENDS", "BackendName"]

BackendName = Literal["auto", "reference", "cpu", "triton"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
"""`auto` chooses by device."""
