"""Runs esm-cpp for `protquant bench lm`; a script for an interpreter that need not have protquant.

Reads lines of JSON with a verb, and answers each with a line: `{"problem": null}`, or what went wrong.
"""

import importlib
import json
import sys
from typing import Any

import numpy as np

_ALPHA, _PERCENTILE = 0.5, 99.9  # esm-cpp's own defaults


class _Engine:
    def __init__(self) -> None:
        try:
            self.esm_cpp = importlib.import_module("esm_cpp")
        except ModuleNotFoundError as error:
            if error.name != "esm_cpp":
                raise
            raise RuntimeError(
                "esm-cpp is not installed. It needs numpy below 2, so give it an environment of its own"
                " (python -m venv esm-cpp; esm-cpp/bin/pip install esm-cpp==0.2.1), and name its interpreter:"
                " --esm-cpp-python esm-cpp/bin/python"
            ) from None

    def load(self, weights: str, calibration: list[list[int]], sequences: list[list[int]]) -> None:
        """Load, calibrate, smooth and quantize, as `esm-cpp-quantize` does."""
        self.model = self.esm_cpp.Model.load_from_safetensors(weights)
        observer = self.esm_cpp.ActivationObserver()
        for row in calibration:
            ids = np.asarray(row, dtype=np.int32)
            self.model.forward_with_observer(ids, np.ones_like(ids), observer)
        self.model.apply_smoothquant(observer.percentile(_PERCENTILE), _ALPHA)
        self.model.quantize_weights()
        self.rows = [np.asarray(row, dtype=np.int32) for row in sequences]

    def run(self) -> None:
        """As `esm-cpp-bench` does: packed, in buckets of similar length."""
        self.logits = self.model.forward_scheduled(self.rows)

    def save(self, path: str) -> None:
        np.savez(path, *self.logits)


def main() -> None:
    """Answer until there are no more lines."""
    engine: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        problem = None
        try:
            engine = engine or _Engine()
            getattr(engine, message.pop("verb"))(**message)
        except Exception as error:  # noqa: BLE001 (whatever it is, the one that asked must hear of it)
            problem = str(error) or type(error).__name__
        sys.stdout.write(json.dumps({"problem": problem}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
