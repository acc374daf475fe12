"""How far the results of contenders are from the first one's: speed that changes the result is none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Deviation"]


class Deviation:
    """Relative error, |result - reference| / |reference - origin|, in the Euclidean norm.

    The first contender that is asked for is the reference; its own deviation is 0.

    Parameters
    ----------
    read : callable
        The tensor to compare, from the result of a run.
    origin : Tensor or float
        What the result would be if the model did nothing.

    Attributes
    ----------
    reference : str or None
        Name of the contender that the others are compared with.
    """

    def __init__(self, read: Callable[[Any], Tensor], origin: Tensor | float = 0.0) -> None:
        self.read, self.origin = read, origin
        self.reference: str | None = None
        self._expected: Tensor | None = None
        self._size = 1.0

    @torch.inference_mode()
    def __call__(self, name: str, result: Any) -> float:
        found = self.read(result).float()
        if self._expected is None:
            # A copy: some contenders return a buffer that the next run overwrites.
            self.reference, self._expected = name, found.clone()
            self._size = float(torch.linalg.vector_norm(self._expected - self.origin))
            return 0.0
        return float(torch.linalg.vector_norm(found - self._expected)) / self._size
