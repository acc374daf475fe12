"""esm-cpp as a candidate of `protquant bench lm`: a script for an interpreter without protquant.

esm-cpp needs numpy below 2, and reads the number of threads when it is imported.
"""

import importlib
from typing import Any

import numpy as np

__all__ = ["EsmCpp", "build"]

_ALPHA, _PERCENTILE = 0.5, 99.9  # esm-cpp's own defaults


class EsmCpp:
    """esm-cpp's model; a call runs it like `esm-cpp-bench`: packed, in buckets of similar length."""

    def __init__(self, model: Any, rows: list[np.ndarray]) -> None:
        self.model, self.rows = model, rows

    def __call__(self) -> Any:
        return self.model.forward_scheduled(self.rows)

    def read(self, logits: Any) -> np.ndarray:
        """Return the logits of all tokens, one sequence after the other."""
        return np.concatenate(list(logits))


def build(weights: str, calibration: list[list[int]], sequences: list[list[int]]) -> EsmCpp:
    """Load, calibrate, smooth and quantize a model, like `esm-cpp-quantize`.

    Parameters
    ----------
    weights : str
        File that `esm_cpp.Model.load_from_safetensors` reads.
    calibration, sequences : list of list of int
        Tokens of the sequences for calibration and for timing.
    """
    try:
        esm_cpp = importlib.import_module("esm_cpp")
    except ModuleNotFoundError as error:
        if error.name != "esm_cpp":
            raise
        raise RuntimeError(
            "esm-cpp is not installed. It needs numpy below 2, so give it an environment of its own"
            " (python -m venv esm-cpp; esm-cpp/bin/pip install esm-cpp==0.2.1), and name its interpreter:"
            " --esm-cpp-python esm-cpp/bin/python"
        ) from None
    model = esm_cpp.Model.load_from_safetensors(weights)
    observer = esm_cpp.ActivationObserver()
    for row in calibration:
        ids = np.asarray(row, dtype=np.int32)
        model.forward_with_observer(ids, np.ones_like(ids), observer)
    model.apply_smoothquant(observer.percentile(_PERCENTILE), _ALPHA)
    model.quantize_weights()
    return EsmCpp(model, [np.asarray(row, dtype=np.int32) for row in sequences])
