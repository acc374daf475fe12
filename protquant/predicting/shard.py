"""A shard: a part of a large run for one process or machine."""

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
    """The part `index` of `count` parts, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard of a text such as `3/16`.

        Raises
        ------
        ProtquantError
            If the text has another form, or there is no such part.
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ProtquantError(f"--shard {text}: give a part and the number of parts, from 1/16 to 16/16, say")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_label(cls, label: str) -> "Shard | None":
        """Return the shard of a label; None if the text is not a label."""
        match = _LABEL.fullmatch(label)
        return cls(int(match[1]), int(match[2])) if match else None

    @property
    def label(self) -> str:
        """Label for names of files, such as `03-of-16`."""
        return f"{self.index:0{len(str(self.count))}d}-of-{self.count}"

    def take(self, items: Sequence[T]) -> list[T]:
        """Return every `count`-th item; if items are sorted by length, all shards have similar lengths."""
        return list(items[self.index - 1 :: self.count])
