"""Read a PyTorch file that contains configuration objects of other libraries, without running their code.

`Record` replaces every class or function that the file names, and only stores its arguments. So the libraries are not
needed, and the file need not be trusted.
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
    """Replacement of an object in a pickle, with its saved state or constructor arguments."""

    def __new__(cls, *args: object) -> Self:
        record = super().__new__(cls)
        record.__dict__["args"] = args
        return record

    def __setstate__(self, state: object) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def read_inert(path: Path) -> Any:
    """Return the content of a `torch.save` file, where a `Record` replaces all but tensors and plain containers.

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
    # The unpickler adds items only to real dictionaries, so defaultdict is not replaced.
    allowed: list[Any] = [(Record, name) for name in sorted(names - {"collections.defaultdict"})]
    with torch.serialization.safe_globals([*allowed, collections.defaultdict]):
        return read_pickle(path)


def setting(settings: object, *names: str) -> Any:
    """Return the value at a path of names in nested dictionaries and records; None if there is none."""
    for name in names:
        settings = _members(settings).get(name)
    # omegaconf stores values, and the items of dictionaries, one level deeper.
    return _members(settings).get("_val", settings)


def _members(settings: object) -> Mapping[str, Any]:
    if isinstance(settings, Mapping):
        return settings
    members: Mapping[str, Any] = getattr(settings, "__dict__", {})
    content = members.get("_content")
    return content if isinstance(content, Mapping) else members
