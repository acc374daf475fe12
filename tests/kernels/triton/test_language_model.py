"""The language model on Triton kernels gives what it gives on plain integers."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch

pytest.importorskip("triton")

from protquant.integer import SupportRow
from protquant.integer.language_model import IntegerESM2
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.kernels.triton.backend import TritonBackend
from protquant.models import ESM2, ESM2Config
from protquant.models.alphabet import tokenize
from protquant.quant import calibrate, load_recipe, quantize

DEVICE = torch.get_default_device()
SEQUENCES = ["MKTAYIAKQRQISFVKSHFS", "GSHMLEDPVDAF", "GIVEQCCTSICSLYQLENYCN", "MA", "KW"]


@cache
def quantized(*, symmetric: bool = True) -> ESM2:
    torch.manual_seed(0)
    config = ESM2Config(num_layers=2, dim=64, num_heads=4, ffn_dim=160)
    model = ESM2(config).to(DEVICE).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(1.5 * torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5)
    tokens = [tokenize([sequence], DEVICE) for sequence in SEQUENCES[:3]]
    with torch.device("cpu"):  # where calibration keeps what it has seen, wherever the model is
        statistics = calibrate(model, tokens, lambda m, t: m.logits(t))
        recipe = load_recipe("w8a8-int8")
        operand = replace(recipe.kinds["matmul_operand"], symmetric=symmetric)
        return quantize(model, replace(recipe, kinds={**recipe.kinds, "matmul_operand": operand}), statistics)[0].eval()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sequences", [SEQUENCES, [SEQUENCES[1], SEQUENCES[1][::-1]]])
def test_it_gives_what_plain_integers_give(sequences: list[str], symmetric: bool):
    tokens = tokenize(sequences, DEVICE)
    found = {}
    for backend in (TritonBackend(dtype=torch.float32), ReferenceBackend()):
        with torch.device("cpu"):
            integer = IntegerESM2(copy.deepcopy(quantized(symmetric=symmetric)), backend)
        products = "int8 queries, keys and values, float32 softmax"
        assert SupportRow("layers.0.attn.products", "integer", products) in integer.rows
        found[backend.name] = integer.logits(tokens)
    expected, exact = found["reference"], quantized(symmetric=symmetric).logits(tokens)
    # A code that falls the other way at a tie moves what follows, as the simulation itself is moved.
    valid = tokens.ne(1)
    assert (found["triton"] - expected)[valid].norm() < 0.02 * expected[valid].norm()
    assert (found["triton"] - exact)[valid].norm() < 0.02 * exact[valid].norm()


def test_few_kernels_run_in_a_layer():
    backend = TritonBackend()
    with torch.device("cpu"):
        integer = IntegerESM2(copy.deepcopy(quantized()), backend)
    integer.logits(tokenize([SEQUENCES[1]] * 3, DEVICE))
    calls = dict(backend.calls)
    assert calls.pop(("linear", "linear_int8")) == 2 * 4
    assert calls == {
        ("norm", "layer_norm_quantize"): 4,
        ("quantize", "quantize_int8"): 4,
        ("attention", "attention_int8"): 2,
    }
