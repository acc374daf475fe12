"""Record a repeated computation as a CUDA graph: the second run is recorded, and later runs replay it."""

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
    """Return whether a device has CUDA graphs."""
    return device.type in _DEVICES


class Recording:
    """A run as a CUDA graph, which needs one launch; a layer or a block alone needs tens of launches.

    Parameters
    ----------
    run : callable
        Function of tensors, which it may change in place; it must not wait for the device. Other tensors that it reads
        must keep their addresses while the recording lives.
    inputs : Tensor
        Example inputs on the GPU. The recording holds copies of them, and the memory of all intermediate tensors.
    """

    def __init__(self, run: Run, *inputs: Tensor) -> None:
        self._run = run
        with torch.inference_mode(False):  # tensors made in inference mode cannot be written outside of it
            self._inputs = tuple(x.clone() for x in inputs)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(inputs[0].device)
        with torch.cuda.graph(self._graph):
            self._outputs = run(*self._inputs)

    def replay(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return copies of the results for other inputs of the same shapes."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return tuple(x.clone() for x in self._outputs)


class Recorder:
    """Holds the recording of the last run, with the key that identifies it.

    Parameters
    ----------
    calls : Counter, optional
        Counter of the backend; replays add the calls of the recorded run to it.
    records : bool
        Whether to record runs.
    """

    def __init__(self, calls: Counter[tuple[str, str]] | None = None, *, records: bool = True) -> None:
        self.calls = Counter() if calls is None else calls
        self.records = records
        self._seen: Hashable = None
        self._recording: Recording | None = None
        self._recorded_calls = Counter[tuple[str, str]]()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": None, "_recording": None}  # graphs cannot be copied or stored

    @property
    def is_recorded(self) -> bool:
        """Whether the next run with the same key is a replay."""
        return self._recording is not None

    def run(self, what: Hashable, prepare: Callable[[], Run], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the results of a run.

        Parameters
        ----------
        what : hashable or None
            Key: everything that a recording depends on, except the values of inputs. The second run in a row with equal
            keys is recorded. None prevents recording.
        prepare : callable
            Returns the function to run; a replay does not call it. It may wait for the device.
        """
        if not self.records:
            what = None
        if what is None or what != self._seen:
            # The first run compiles kernels and makes constants. Delete the recording of earlier runs.
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
        """Make a recording, and return whether that succeeded; it does not count as a run."""
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
