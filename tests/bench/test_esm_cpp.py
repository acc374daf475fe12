"""esm-cpp is spoken to in a process of its own; here another program stands in its place, and speaks as it does."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from protquant.bench import choices, esm_cpp_script, workloads
from protquant.bench.baselines_lm import random_esm2
from protquant.bench.esm_cpp import esm_cpp_arguments, write_esm_cpp_weights
from protquant.bench.worker_process import WorkerProcess, target_of
from protquant.bench.workloads import language_work
from protquant.models import ESM2Config

SMALL = ESM2Config(num_layers=2, dim=40, num_heads=5, ffn_dim=160)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choices.LM_PRESETS, "small", SMALL)
    monkeypatch.setattr(workloads, "_RAGGED", 3)


# What the worker imports as esm_cpp: it gives as logits the tokens themselves.
STAND_IN = """
import numpy as np
class ActivationObserver:
    def percentile(self, share): return {"layer0.attn_out": 1.0}
class Model:
    @staticmethod
    def load_from_safetensors(path):
        assert open(path, "rb").read(8)
        return Model()
    def forward_with_observer(self, ids, mask, observer): assert ids.dtype == mask.dtype == np.int32
    def apply_smoothquant(self, stats, alpha): assert stats and alpha == 0.5
    def quantize_weights(self): self.quantized = True
    def forward_scheduled(self, rows):
        assert self.quantized
        return [np.repeat(row[:, None], 33, 1).astype(np.float32) for row in rows]
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter that finds the stand-in."""
    (tmp_path / "esm_cpp.py").write_text(STAND_IN)
    program = tmp_path / "python"
    paths = [str(tmp_path), *sys.path]
    run = f"import sys, runpy; sys.path[:0] = {paths!r}; runpy.run_path(sys.argv[-1], run_name='__main__')"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{run}" "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_a_run_gives_the_logits_of_real_tokens_in_the_order_of_sequences(python: str, small, tmp_path: Path):
    arguments = esm_cpp_arguments(tmp_path, "small", "ragged", 0, "cpu")
    with WorkerProcess(1, python) as worker:
        worker.ask("build", target=target_of(esm_cpp_script.build, is_script=True), arguments=arguments)
        worker.ask("turn", save=str(tmp_path / "logits.npy"))
    logits, work = np.load(tmp_path / "logits.npy"), language_work("ragged")
    assert logits.shape == (int(work.valid.sum()), 33)
    assert logits[:, 0].tolist() == work.tokens[work.valid].tolist()


def test_an_interpreter_without_esm_cpp_is_told_how_to_get_it(small, tmp_path: Path):
    with pytest.raises(RuntimeError, match="--esm-cpp-python"):
        esm_cpp_script.build(**esm_cpp_arguments(tmp_path, "small", "ragged", 0, "cpu"))


def test_weights_are_written_as_it_reads_them(tmp_path: Path):
    model = random_esm2(SMALL)
    write_esm_cpp_weights(model, tmp_path / "model.safetensors")
    state = load_file(tmp_path / "model.safetensors")
    layer = "esm.encoder.layer.1."
    assert torch.equal(state[layer + "LayerNorm.weight"], model.layers[1].ffn_norm.weight)
    assert torch.equal(state[layer + "output.dense.bias"], model.layers[1].ffn.down_proj.bias)
    rotary = state[layer + "attention.self.rotary_embeddings.inv_freq"]
    assert torch.equal(rotary, model.layers[1].attn.rotary.inverse_frequency)
    assert torch.equal(state["esm.embeddings.word_embeddings.weight"], model.embedding.weight)
