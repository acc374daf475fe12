"""What a benchmark is run under: threads, memory, device, and names that are checked before the work."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from protquant.bench.freed_memory import FreedMemory
from protquant.errors import ProtquantError, suggestion

__all__ = ["check_names", "computing_with", "finish_on"]


@contextmanager
def computing_with(threads: int | None, keep_memory: bool = False) -> Iterator[FreedMemory]:
    """Let torch compute with so many threads, and with as many as before afterwards; None: with as many as now.

    Parameters
    ----------
    keep_memory : bool
        Whether memory that contenders free is kept, see `FreedMemory`.

    Yields
    ------
    FreedMemory
        Entered, for `run_contest`.

    Raises
    ------
    ProtquantError
        For fewer than one thread.
    """
    if threads is not None and threads < 1:
        raise ProtquantError(f"--threads {threads}: give 1 or more")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with FreedMemory(keep_memory) as freed:
            yield freed
    finally:
        torch.set_num_threads(before)


def finish_on(device: torch.device) -> Callable[[], Any] | None:
    """What waits until `device` has done its work; None where calls return when it is done."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else None


def check_names(option: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raise ProtquantError for a name that is not known."""
    for name in names:
        if name not in known:
            raise ProtquantError(f"{option} {name}: not known; {suggestion(name, known)}")
