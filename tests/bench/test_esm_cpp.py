"""esm-cpp is spoken to in a process of its own; here another program stands in its place, and speaks as it does."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from protquant.bench.esm_cpp import esm_cpp_run, write_esm_cpp_weights
from protquant.bench.lm import random_esm2
from protquant.bench.workloads import LanguageWork
from protquant.errors import ProtquantError
from protquant.models import ESM2Config

SMALL = ESM2Config(num_layers=2, dim=40, num_heads=5, ffn_dim=160)
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
def test_a_run_gives_logits_in_the_order_of_sequences(python: str):
    work = LanguageWork(["MKTAYIAK", "GIV", "ACDEF"])
    run = esm_cpp_run(random_esm2(SMALL), work, python)
    logits = run().logits()
    assert logits.shape == (3, 10, 33)
    assert torch.equal(logits[..., 0][work.valid].long(), work.tokens[work.valid])


def test_an_interpreter_without_esm_cpp_is_told_how_to_get_it():
    with pytest.raises(ProtquantError, match="--esm-cpp-python"):
        esm_cpp_run(random_esm2(SMALL), LanguageWork(["MKTAYIAK"]), sys.executable)


def test_an_interpreter_that_is_not_there_is_named():
    with pytest.raises(ProtquantError, match="no/such/python: cannot be started"):
        esm_cpp_run(random_esm2(SMALL), LanguageWork(["MKTAYIAK"]), "no/such/python")


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
