"""Steps of long work: a bar on a terminal, and the same state as text for other outputs."""

from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

__all__ = ["Steps", "open_steps"]

_open: list["Steps"] = []


class Steps(tqdm):  # type: ignore[type-arg]  # tqdm is generic in its stubs only
    """A bar of tqdm that also counts when it is not drawn. It takes the arguments of tqdm."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._unit = settings.get("unit", "step")
        if self.disable:  # tqdm does not set these attributes of a disabled bar
            self.desc, self.postfix = settings.get("desc") or "", None
        _open.append(self)

    def __iter__(self) -> Iterator[Any]:
        try:
            if not self.disable:
                yield from super().__iter__()
                return
            for item in self.iterable:
                yield item
                self.n += 1
        finally:
            self.close()

    def update(self, n: float | None = 1) -> bool | None:
        """Add to the number of finished steps."""
        if not self.disable:
            return super().update(n)
        self.n += n or 0
        return None

    def close(self) -> None:
        """End the bar, and remove it from `open_steps()`."""
        _open[:] = [bar for bar in _open if bar is not self]  # not `remove`: tqdm compares bars by their position
        super().close()

    def text(self) -> str:
        """Return the number of finished steps as text, such as `calibrate: 3 of 12 sequences`."""
        of = f" of {self.total}" if self.total else ""
        what = f" ({self.postfix})" if self.postfix else ""
        label = (self.desc or "").removesuffix(": ")
        return f"{label}: {self.n}{of} {self._unit}s{what}".removeprefix(": ")


def open_steps() -> list[Steps]:
    """Return the open bars, from the outermost to the innermost."""
    return list(_open)
