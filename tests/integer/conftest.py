"""What stands for CUDA graphs on a machine without a GPU."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from protquant.integer import recording

Run = Callable[..., tuple[Tensor, ...]]


class Tape:
    """Stands for a CUDA graph: runs again what it was given, uncounted."""

    def __init__(self, calls: Counter[tuple[str, str]], run: Run, *inputs: Tensor) -> None:
        self.calls, self.run, self.replays = calls, run, 0
        self.run(*(x.clone() for x in inputs))

    def replay(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.replays += 1
        before = self.calls.copy()
        result = self.run(*(x.clone() for x in inputs))
        self.calls.clear()
        self.calls.update(before)
        return result


class Tapes(list[Tape]):
    """All that were made; `calls` are those of the backend."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[tuple[str, str]]()

    def record(self, run: Run, *inputs: Tensor) -> Tape:
        self.append(Tape(self.calls, run, *inputs))
        return self[-1]

    def record_few(self, run: Run, *inputs: Tensor) -> Tape:
        """There is no memory for more than 8 residues."""
        if inputs[-1].shape[1] > 8:
            run(*(x.clone() for x in inputs))
            raise torch.OutOfMemoryError
        return self.record(run, *inputs)

    @property
    def replays(self) -> list[int]:
        return [tape.replays for tape in self]


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Tapes:
    made = Tapes()
    monkeypatch.setattr(recording, "Recording", made.record)
    monkeypatch.setattr(recording, "_DEVICES", ("cpu",))
    return made
