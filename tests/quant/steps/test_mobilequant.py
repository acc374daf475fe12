"""The quantized model answers more like the float one, its grids are static, and training can be stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Output
from protquant.quant import (
    ActivationQuantizer,
    Examples,
    QuantizedLayerNorm,
    QuantizedLinear,
    Recipe,
    calibrate,
    load_recipe,
    plan,
    quantize,
)
from protquant.quant.formats import UniformQuantizer
from protquant.sites import find_sites

SEQUENCE = "MKTVRQERLKSIVRILERSK"


def run(model: ESM2, tokens: Tensor) -> ESM2Output:
    return model(tokens)


def recipe(name: str = "w4a8-mobilequant", **settings: Any) -> Recipe:
    data = load_recipe(name).to_dict()
    return Recipe.from_dict({**data, "steps": [{"step": "mobilequant", **settings}]})


def make_examples(tokens: list[Tensor], objective: Callable[..., Tensor] = ESM2.objective, **more) -> Examples:
    return Examples(tuple(tokens), run, objective=objective, **more)


def test_the_loss_falls_and_so_does_the_drift(encoder: ESM2, tokens):
    losses: list[float] = []

    def objective(output: ESM2Output, answer: ESM2Output, loss: str) -> Tensor:
        value = ESM2.objective(output, answer, loss)
        losses.append(value.item())
        return value

    learned, _ = quantize(encoder, recipe(epochs=10, scale_rate=1e-2), examples=make_examples(tokens, objective))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    plain, _ = quantize(encoder, Recipe.from_dict({**recipe().to_dict(), "steps": []}), calibrate(encoder, tokens))
    with torch.no_grad():
        answers = [run(encoder, each).last_hidden for each in tokens]
        drifts = [
            sum(F.mse_loss(run(model, each).last_hidden, answer) for each, answer in zip(tokens, answers, strict=True))
            for model in (learned, plain)
        ]
    assert drifts[0] < 0.8 * drifts[1]


def test_exported_grids_are_static_and_everywhere(encoder: ESM2, tokens):
    model, report = quantize(encoder, recipe("w8a8-mobilequant", epochs=1), examples=make_examples(tokens))
    quantizers = [m.quantizer for m in model.modules() if isinstance(m, ActivationQuantizer)]
    layers = [m for m in model.modules() if isinstance(m, QuantizedLinear | QuantizedLayerNorm)]
    quantizers += [layer.weight_quantizer for layer in layers]
    assert all(type(q) is UniformQuantizer and not q.scale.requires_grad for q in quantizers)
    formats = plan(encoder, "w8a8-mobilequant")
    assert len(quantizers) == sum(assignment.format is not None for assignment in formats)
    assert all(q.scale.numel() == 1 for q in quantizers[: -len(layers)])
    bits = {(site.kind, site.bits) for site in report.sites if site.format != "float"}
    assert bits == {
        *((kind, 8) for kind in ("linear_weight", "linear_input", "matmul_operand")),
        *((kind, 16) for kind in ("norm_gain", "norm_input", "softmax_input", "softmax_output")),
    }


class _StoppedError(Exception):
    pass


def test_going_on_from_a_checkpoint_gives_what_never_stopping_gives(encoder: ESM2, tokens, tmp_path: Path):
    calls = 0

    def stop(output: ESM2Output, answer: ESM2Output, loss: str) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 8:  # in the middle of the third epoch
            raise _StoppedError
        return ESM2.objective(output, answer, loss)

    steps = recipe(epochs=4)
    whole, _ = quantize(encoder, steps, examples=make_examples(tokens))
    file = tmp_path / "tuning.safetensors"
    with pytest.raises(_StoppedError):
        quantize(encoder, steps, examples=make_examples(tokens, stop, checkpoint=file))
    calls = -100
    resumed, _ = quantize(encoder, steps, examples=make_examples(tokens, stop, checkpoint=file))
    assert calls == -100 + 6
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    # Done is done.
    quantize(encoder, steps, examples=make_examples(tokens, stop, checkpoint=file))
    assert calls == -100 + 6
    with pytest.raises(ProtquantError, match="other settings, weights or sequences"):
        quantize(encoder, recipe(epochs=5), examples=make_examples(tokens, checkpoint=file))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ProtquantError, match=r"tuning\.safetensors cannot be read"):
        quantize(encoder, steps, examples=make_examples(tokens, checkpoint=file))


def test_the_seed_decides_the_order(encoder: ESM2, tokens):
    first, again, other = (
        quantize(encoder, recipe(epochs=1), examples=make_examples(tokens, seed=seed))[0].state_dict()
        for seed in (0, 0, 3)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_formats_that_learn_nothing_take_part(encoder: ESM2, tokens):
    data = recipe(epochs=2).to_dict()
    data["kinds"] |= {
        "norm_input": {"format": "piecewise_linear", "bits": 8, "mode": "asymmetric"},
        "matmul_operand": {"format": "uniform", "bits": 8, "granularity": "token"},
        "linear_weight": {"format": "uniform", "bits": 4, "granularity": "group", "group_size": 16},
    }
    model, _ = quantize(encoder, Recipe.from_dict(data), examples=make_examples(tokens))
    assert torch.isfinite(run(model, tokens[0]).last_hidden).all()


def test_nothing_of_the_training_stays(encoder: ESM2, tokens):
    model, _ = quantize(encoder, recipe(epochs=1), examples=make_examples(tokens))
    assert [site.name for site in find_sites(encoder)]
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"losss": "hidden"}, "step 'mobilequant' has no setting 'losss'; did you mean loss"),
        ({"loss": "structures"}, "loss 'structures' is none of hidden, structure; did you mean structure"),
        ({"epochs": 1.5}, "epochs 1.5"),
        ({"alpha": 2}, "alpha 2"),
        ({"range_rate": -1}, "range_rate -1"),
        ({"initial_range": "all"}, "'all' is none of minmax"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ProtquantError, match=message):
        recipe(**settings)


def test_a_language_model_has_no_structure_to_compare(encoder: ESM2, tokens):
    with pytest.raises(ProtquantError, match="no loss 'structure'"):
        quantize(encoder, recipe(loss="structure", epochs=1), examples=make_examples(tokens))
    with pytest.raises(ProtquantError, match="needs an objective"):
        quantize(encoder, recipe(epochs=1), examples=Examples(tuple(tokens), run))
