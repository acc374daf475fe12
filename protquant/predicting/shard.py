"""A part of a large run, for a process or a machine of its own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from protquant.errors import ProtquantError

__all__ = ["Shard"]

_WRITTEN = re.compile(r"(\d+)/(\d+)")
_LABEL = re.compile(r"(\d+)-of-(\d+)")
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` parts, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read a shard as people write it, such as `3/16`.

        Raises
        ------
        ProtquantError
            If it is written otherwise, or there is no such part.
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ProtquantError(f"--shard {text}: give a part and the number of parts, from 1/16 to 16/16, say")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_label(cls, label: str) -> "Shard | None":
        """The shard of a label; None if it is none."""
        match = _LABEL.fullmatch(label)
        return cls(int(match[1]), int(match[2])) if match else None

    @property
    def label(self) -> str:
        """For names of files: `03-of-16`."""
        return f"{self.index:0{len(str(self.count))}d}-of-{self.count}"

    def take(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item: of what is sorted by length, each shard gets as much of the long as of the short."""
        return list(items[self.index - 1 :: self.count])
