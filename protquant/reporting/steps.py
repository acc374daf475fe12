"""Steps of long work: a bar on a terminal, and elsewhere what a line can tell of them."""

from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

__all__ = ["Steps", "open_steps"]

_open: list["Steps"] = []


class Steps(tqdm):  # type: ignore[type-arg]  # which tqdm has none of when it runs
    """A bar of tqdm, with its arguments, that counts where it is not drawn, too."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._unit = settings.get("unit", "step")
        if self.disable:  # of which tqdm keeps next to nothing
            self.desc, self.postfix = settings.get("desc") or "", None
        _open.append(self)

    def __iter__(self) -> Iterator[Any]:
        try:
            if not self.disable:
                yield from super().__iter__()
                return
            for each in self.iterable:
                yield each
                self.n += 1
        finally:
            self.close()

    def update(self, n: float | None = 1) -> bool | None:
        """Count steps that are done."""
        if not self.disable:
            return super().update(n)
        self.n += n or 0
        return None

    def close(self) -> None:
        """Tell of it no more."""
        _open[:] = [each for each in _open if each is not self]  # those of tqdm are equal to each other
        super().close()

    def text(self) -> str:
        """Return how many steps are done: `calibrate: 3 of 12 sequences`."""
        of = f" of {self.total}" if self.total else ""
        what = f" ({self.postfix})" if self.postfix else ""
        label = (self.desc or "").removesuffix(": ")
        return f"{label}: {self.n}{of} {self._unit}s{what}".removeprefix(": ")


def open_steps() -> list[Steps]:
    """Return the steps that are under way, from the outermost to the innermost."""
    return list(_open)
