"""esm-cpp as a candidate of `protquant bench lm`: a script for an interpreter that need not have protquant.

esm-cpp counts on numpy below 2, and on a number of threads that is set before it is imported.
"""

import importlib
from typing import Any

import numpy as np

__all__ = ["EsmCpp", "build"]

_ALPHA, _PERCENTILE = 0.5, 99.9  # esm-cpp's own defaults


class EsmCpp:
    """The model; a call runs it as `esm-cpp-bench` does: packed, in buckets of similar length."""

    def __init__(self, model: Any, rows: list[np.ndarray]) -> None:
        self.model, self.rows = model, rows

    def __call__(self) -> Any:
        return self.model.forward_scheduled(self.rows)

    def read(self, logits: Any) -> np.ndarray:
        """Return the logits of all tokens, one sequence after the other."""
        return np.concatenate(list(logits))


def build(weights: str, calibration: list[list[int]], sequences: list[list[int]]) -> EsmCpp:
    """Load, calibrate, smooth and quantize, as `esm-cpp-quantize` does.

    Parameters
    ----------
    weights : str
        File that `esm_cpp.Model.load_from_safetensors` reads.
    calibration, sequences : list of list of int
        Tokens of the sequences that it is calibrated on, and that it is timed on.
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
