"""Read a PyTorch file whose configuration is made of other libraries' objects, without running any of their code.

Every class or function that such a file names is replaced by `Record`, which only keeps what it is given: neither
the libraries nor trust in the file are needed.
"""

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from protquant.checkpoints.weight_files import is_archive, read_pickle
from protquant.errors import ProtquantError

__all__ = ["Record", "read_inert", "setting"]


class Record:
    """What is left of an object of a pickle: the state it was saved with, or the arguments it was made of."""

    def __new__(cls, *args: object) -> Self:
        record = super().__new__(cls)
        record.__dict__["args"] = args
        return record

    def __setstate__(self, state: object) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def read_inert(path: Path) -> Any:
    """What `torch.save` wrote, with every object but tensors and plain containers turned into a `Record`.

    Raises
    ------
    ProtquantError
        If the file is missing, truncated or damaged.
    """
    names = {"argparse.Namespace"}
    if path.is_file() and is_archive(path):
        try:
            names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        except Exception as error:  # what a damaged pickle raises depends on where the damage is
            raise ProtquantError(f"{path}: cannot be read, it is truncated or damaged; fetch it again.") from error
    # A dictionary is filled while it is read, which only real ones are allowed.
    allowed: list[Any] = [(Record, name) for name in sorted(names - {"collections.defaultdict"})]
    with torch.serialization.safe_globals([*allowed, collections.defaultdict]):
        return read_pickle(path)


def setting(settings: object, *names: str) -> Any:
    """The value under a path of names in nested dictionaries and records; None if there is none."""
    for name in names:
        settings = _members(settings).get(name)
    # A value of omegaconf is kept one level down, and so are the items of its dictionaries.
    return _members(settings).get("_val", settings)


def _members(settings: object) -> Mapping[str, Any]:
    if isinstance(settings, Mapping):
        return settings
    members: Mapping[str, Any] = getattr(settings, "__dict__", {})
    content = members.get("_content")
    return content if isinstance(content, Mapping) else members
