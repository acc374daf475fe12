"""Steps that scale channels: the float function stays, and what is not to be changed is not."""

import copy

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize
from protquant.quant import Recipe, plan
from protquant.quant.layerwise import sweep
from protquant.quant.steps import AQAS, AWQ, LinkTransform, SmoothQuant, step_from_config
from protquant.quant.transforms import LinkLayers, TransformedLinear
from protquant.topology import find_links

SEQUENCE = "MKTVRQERLKSIVRILERSK"
W4A8 = Recipe(
    kinds={
        "linear_weight": {"format": "uniform", "bits": 4, "symmetric": False, "granularity": "channel"},
        "linear_input": {"format": "uniform", "bits": 8, "symmetric": False, "granularity": "tensor"},
    }
)
STEPS = [SmoothQuant(everywhere=True), AWQ(), AQAS(grid=5), AQAS(grid=3, two_exponents=True)]


def fold(model: ESMFold, sequence: str) -> object:
    return model(encode_complexes([sequence]), num_recycles=1)


def encode(model: ESM2, sequence: str) -> object:
    return model(tokenize([sequence]))


def take(step: LinkTransform, model: ESM2 | ESMFold) -> None:
    """What the engine does with a step."""
    assignments, links = plan(model, W4A8), list(find_links(model))
    run = fold if isinstance(model, ESMFold) else encode
    for stage in sweep(model, [SEQUENCE], run, [link.readers for link in links]):
        for link in links:
            if link.readers[0] in stage.evidence:
                step.apply(LinkLayers(model, link), stage.evidence[link.readers[0]], assignments)


@torch.no_grad()
def outputs(model: ESM2 | ESMFold) -> list[torch.Tensor]:
    if isinstance(model, ESMFold):
        result = model(encode_complexes([SEQUENCE]), num_recycles=1)
        return [result.positions, result.plddt_logits, result.pae_logits, result.distogram_logits]
    return [model.logits(tokenize([SEQUENCE])), model.contacts(tokenize([SEQUENCE]))]


@pytest.mark.parametrize("folding", [False, True], ids=["esm2", "esmfold"])
@pytest.mark.parametrize("step", STEPS, ids=["smoothquant", "awq", "aqas", "aqas-two-exponents"])
def test_the_float_function_stays(esmfold: ESMFold, folding: bool, step: LinkTransform):
    original = copy.deepcopy(esmfold if folding else esmfold.lm).double().eval()
    model = copy.deepcopy(original)
    take(step, model)
    norm = "lm.layers.0.ffn_norm" if folding else "layers.0.ffn_norm"
    assert not torch.equal(model.get_submodule(norm).weight, original.get_submodule(norm).weight)
    for ours, theirs in zip(outputs(model), outputs(original), strict=True):
        assert (ours - theirs).abs().max().item() <= 1e-5 * theirs.abs().max().item()


@pytest.mark.parametrize(
    ("step", "changed"),
    [
        (SmoothQuant(), False),
        (SmoothQuant(everywhere=True), True),
        (AWQ(), True),
        (AWQ(run_time=False), False),
        (AQAS(grid=5), True),
        (AQAS(grid=5, run_time=False), False),
    ],
)
def test_layers_behind_gelu_divide_at_run_time_or_are_left_alone(encoder: ESM2, step: LinkTransform, changed: bool):
    model = copy.deepcopy(encoder)
    take(step, model)
    assert isinstance(model.layers[0].ffn.down_proj, TransformedLinear) == changed


def test_smoothquant_divides_by_the_papers_scale(encoder: ESM2):
    alpha = 0.7
    model = copy.deepcopy(encoder)
    with torch.no_grad():
        read = model.layers[0].ffn_norm(torch.randn(30, 32))
    weight = model.layers[0].ffn.up_proj.weight.detach()
    expected = read.abs().amax(0) ** alpha / weight.abs().amax(0) ** (1 - alpha)
    gain = model.layers[0].ffn_norm.weight.detach().clone()
    link = next(link for link in find_links(model) if link.readers == ("layers.0.ffn.up_proj",))
    stage = next(sweep(torch.nn.Sequential(torch.nn.Linear(32, 1)), [read], lambda m, x: m(x), [["0"]]))
    SmoothQuant(alpha=alpha).apply(LinkLayers(model, link), stage.evidence["0"], plan(encoder, W4A8))
    assert torch.allclose(gain / model.layers[0].ffn_norm.weight, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"step": "smoothquant", "alpha": 1.5},
        {"step": "awq", "grid": 0},
        {"step": "awq_clip", "max_shrink": 0},
        {"step": "awq_clip", "skip": "re:("},
        {"step": "aqas", "num_rows": 0},
        {"step": "gptq", "damping": 0},
        {"step": "gptq", "block": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(config: dict[str, object]):
    with pytest.raises(ProtquantError, match=str(config["step"])):
        step_from_config(config)
