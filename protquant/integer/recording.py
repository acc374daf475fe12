"""What is launched kernel by kernel the first time is recorded as a CUDA graph the second time, and replayed then."""

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Recorder", "Recording", "can_record"]

log = logging.getLogger(__name__)

_DEVICES = ("cuda",)

Run = Callable[..., tuple[Tensor, ...]]


def can_record(device: torch.device) -> bool:
    """Whether there are such graphs on a device."""
    return device.type in _DEVICES


class Recording:
    """A run as a CUDA graph: launched as one, where a layer or a block is tens of launches.

    Parameters
    ----------
    run : callable
        Given tensors, which it may change in place; waits for nothing on the device. What it reads beside them stays
        where it is for as long as this is there.
    inputs : Tensor
        Examples, on the GPU. The recording keeps copies of them, and the memory of all that is between.
    """

    def __init__(self, run: Run, *inputs: Tensor) -> None:
        self._run = run
        with torch.inference_mode(False):  # or nobody outside of that mode could write to them
            self._inputs = tuple(x.clone() for x in inputs)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(inputs[0].device)
        with torch.cuda.graph(self._graph):
            self._outputs = run(*self._inputs)

    def replay(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the run gives for other values of the same shapes, in memory of its own."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return tuple(x.clone() for x in self._outputs)


class Recorder:
    """Keeps the recording of what was run last, and says what it was made of.

    Parameters
    ----------
    calls : Counter, optional
        Of the backend: what is replayed counts there as well.
    records : bool
        Whether to record at all.
    """

    def __init__(self, calls: Counter[tuple[str, str]] | None = None, *, records: bool = True) -> None:
        self.calls = Counter() if calls is None else calls
        self.records = records
        self._seen: Hashable = None
        self._recording: Recording | None = None
        self._recorded_calls = Counter[tuple[str, str]]()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": None, "_recording": None}  # a graph is neither copied nor stored

    @property
    def is_recorded(self) -> bool:
        """Whether the next run of what was run last is a replay."""
        return self._recording is not None

    def run(self, what: Hashable, prepare: Callable[[], Run], *inputs: Tensor) -> tuple[Tensor, ...]:
        """What a run gives for some inputs.

        Parameters
        ----------
        what : hashable or None
            All that a recording depends on but the values of inputs: the same again is recorded. None: it cannot be.
        prepare : callable
            Makes what is run; not called where a recording is replayed. It may wait for the device.
        """
        if not self.records:
            what = None
        if what is None or what != self._seen:
            # The first time kernels are compiled, and constants are made. Nothing is kept of what went before.
            self._seen, self._recording = None, None
            outputs = prepare()(*inputs)
            self._seen = what
            return outputs
        if self._recording is None:
            run = prepare()
            if not self._record(run, inputs):
                return run(*inputs)
        assert self._recording is not None
        self.calls.update(self._recorded_calls)
        return self._recording.replay(*inputs)

    def _record(self, run: Run, inputs: tuple[Tensor, ...]) -> bool:
        """Make a recording, and tell whether that went well; it does not count as a run."""
        before = self.calls.copy()
        try:
            self._recording = Recording(run, *inputs)
        except torch.OutOfMemoryError:
            self._seen = None
            shapes = " and ".join(" x ".join(map(str, x.shape)) for x in inputs)
            log.warning("kernels are launched one by one: there is no memory for a recording of %s numbers", shapes)
        except RuntimeError as error:
            self.records = False
            log.warning("kernels are launched one by one, because they cannot be recorded on this GPU: %s", error)
        self._recorded_calls = self.calls - before
        self.calls.clear()
        self.calls.update(before)
        return self._recording is not None
