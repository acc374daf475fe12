"""esm-cpp's W8A8 with our weights, in a process of its own.

It counts on numpy below 2 and on a number of threads that is set before it is imported, so it lives in another
interpreter (`--esm-cpp-python`). Each run sends a line and waits for one, which takes far less than a millisecond.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from protquant.bench.workloads import LanguageWork, language_work
from protquant.checkpoints.names import HUGGING_FACE_ESM2
from protquant.errors import ProtquantError
from protquant.models import ESM2
from protquant.models.alphabet import tokenize

__all__ = ["esm_cpp_run", "write_esm_cpp_weights"]

_WORKER = Path(__file__).with_name("esm_cpp_worker.py")
_LAYER = re.compile(r"layers\.(\d+)\.attn\.q_proj\.weight")
_CALIBRATION_SEQUENCES = 4


def write_esm_cpp_weights(model: ESM2, path: Path) -> None:
    """The file that `esm_cpp.Model.load_from_safetensors` reads.

    It is transformers' of some years ago: each layer has rotary frequencies, and a LayerNorm a weight and a bias.
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


def esm_cpp_run(model: ESM2, work: LanguageWork, python: str | None = None) -> Callable[[], Any]:
    """Start esm-cpp with our weights, calibrate and quantize it, and return what runs it on a workload.

    Parameters
    ----------
    python : str, optional
        An interpreter that has esm-cpp.

    Raises
    ------
    ProtquantError
        If that interpreter has no esm-cpp, or esm-cpp fails.
    """
    # Other sequences than those that are timed.
    calibration = language_work("ragged", seed=1).sequences[:_CALIBRATION_SEQUENCES]
    with tempfile.TemporaryDirectory() as folder:
        write_esm_cpp_weights(model, Path(folder) / "model.safetensors")
        worker = _Worker(python or sys.executable)
        worker.ask(
            "load",
            weights=str(Path(folder) / "model.safetensors"),
            calibration=[_rows([sequence])[0] for sequence in calibration],
            sequences=_rows(work.sequences),
        )
        return _Run(worker, work)


class _Run:
    """A run gives logits as our model does: padded, zero where there is padding."""

    def __init__(self, worker: "_Worker", work: LanguageWork) -> None:
        self.worker, self.work = worker, work

    def __call__(self) -> "_Run":
        self.worker.ask("run")
        return self

    def logits(self) -> Tensor:
        """Of the last run; fetched through a file, and so no part of what is timed."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "logits.npz"
            self.worker.ask("save", path=str(path))
            with np.load(path) as rows:
                each = [torch.from_numpy(rows[f"arr_{index}"]) for index in range(len(rows.files))]
        return torch.nn.utils.rnn.pad_sequence(each, batch_first=True)


class _Worker:
    """A process that is asked for one thing at a time."""

    def __init__(self, python: str) -> None:
        # Isolated: the files beside the script are no modules of it.
        command = [python, "-I", str(_WORKER)]
        environment = {**os.environ, "ESM_NUM_THREADS": str(torch.get_num_threads())}
        try:
            self._process = subprocess.Popen(  # noqa: S603 (the interpreter that the user names)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        except OSError as error:
            raise ProtquantError(f"{python}: cannot be started ({error.strerror})") from error
        weakref.finalize(self, _stop, self._process)

    def ask(self, verb: str, **arguments: Any) -> None:
        """Wait until it is done.

        Raises
        ------
        ProtquantError
            If it fails; says what esm-cpp said.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise ProtquantError(f"the process of esm-cpp ended (code {self._process.wait()})")
        if problem := json.loads(answer)["problem"]:
            raise ProtquantError(problem)


def _stop(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _rows(sequences: list[str]) -> list[list[int]]:
    return [tokenize([sequence])[0].tolist() for sequence in sequences]
