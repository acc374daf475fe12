"""Write our weights and sequences for esm-cpp's W8A8, which runs in another interpreter (`--esm-cpp-python`)."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from protquant.bench.baselines_lm import random_esm2
from protquant.bench.choices import LM_PRESETS, Workload
from protquant.bench.workloads import language_work
from protquant.checkpoints.names import HUGGING_FACE_ESM2
from protquant.models import ESM2
from protquant.models.alphabet import tokenize

__all__ = ["esm_cpp_arguments", "write_esm_cpp_weights"]

_LAYER = re.compile(r"layers\.(\d+)\.attn\.q_proj\.weight")
_CALIBRATION_SEQUENCES = 4


def write_esm_cpp_weights(model: ESM2, path: Path) -> None:
    """Write the file that `esm_cpp.Model.load_from_safetensors` reads.

    It has the layout of an old version of transformers, where each layer has rotary frequencies.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        renamed = HUGGING_FACE_ESM2.to_theirs(name)
        assert renamed is not None, name
        state[renamed] = tensor.detach().cpu().float().contiguous()
        if layer := _LAYER.fullmatch(name):
            frequency = model.get_submodule(f"layers.{layer[1]}.attn.rotary").inverse_frequency
            assert isinstance(frequency, Tensor)
            rotary = f"esm.encoder.layer.{layer[1]}.attention.self.rotary_embeddings.inv_freq"
            state[rotary] = frequency.cpu().float().clone()
    save_file(state, path)


def esm_cpp_arguments(folder: Path, preset: str, workload: Workload, seed: int, device: str) -> dict[str, Any]:  # noqa: ARG001
    """Write our weights to a folder, and return the arguments of the script, which computes on the CPU."""
    write_esm_cpp_weights(random_esm2(LM_PRESETS[preset], seed), folder / "model.safetensors")
    # Calibrate on other sequences than the timed ones.
    calibration = language_work("ragged", seed=1).sequences[:_CALIBRATION_SEQUENCES]
    return {
        "weights": str(folder / "model.safetensors"),
        "calibration": _rows(calibration),
        "sequences": _rows(language_work(workload, seed=seed).sequences),
    }


def _rows(sequences: list[str]) -> list[list[int]]:
    return [tokenize([sequence])[0].tolist() for sequence in sequences]
