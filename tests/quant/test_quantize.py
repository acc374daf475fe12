import math

import pytest
import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.models.esm2 import ESM2
from protquant.quant import (
    ActivationQuantizer,
    Examples,
    QuantizedLayerNorm,
    QuantizedLinear,
    Recipe,
    available_recipes,
    calibrate,
    plan,
    quantize,
)
from protquant.sites import find_sites

EIGHT = {"format": "uniform", "bits": 8, "granularity": "channel"}


def hidden(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens).last_hidden


def drift(model: nn.Module, quantized: nn.Module, tokens: list[torch.Tensor]) -> float:
    return sum((hidden(model, t) - hidden(quantized, t)).square().mean().item() for t in tokens)


def test_fp32_changes_nothing(encoder, tokens):
    quantized, report = quantize(encoder, "fp32")
    assert quantized is not encoder
    assert torch.equal(hidden(quantized, tokens[0]), hidden(encoder, tokens[0]))
    assert report.weight_bytes == report.float_weight_bytes
    assert (report.weight_bits, report.activation_bits) == (32, 32)


@pytest.mark.parametrize("recipe", available_recipes())
def test_every_shipped_recipe_runs_and_lists_every_site(encoder, statistics, tokens, recipe):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    examples = Examples(
        tuple(tokens),
        lambda model, each: model(each),
        objective=lambda ours, theirs, *_: (ours.last_hidden - theirs.last_hidden).square().mean(),
    )
    quantized, report = quantize(encoder, recipe, statistics, examples=examples)
    assert isinstance(quantized, ESM2)
    assert torch.isfinite(quantized.logits(tokens[0])).all()
    assert quantized.contacts(tokens[0]).shape[-1] == tokens[0].shape[1] - 2
    assert [site.site for site in report.sites] == [site.name for site in find_sites(encoder)]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert len(report.to_frame()) == len(report.sites)
    assert report.recipe.name in str(report)


def test_piecewise_activations_drift_less_than_uniform_ones(encoder, statistics, tokens):
    drifts = {
        name: drift(encoder, quantize(encoder, name, statistics)[0], tokens)
        for name in ("w8", "w8a8-pwlq", "w8a8-uniform-noln", "w8a8-uniform")
    }
    assert drifts["w8"] < drifts["w8a8-pwlq"] < drifts["w8a8-uniform-noln"] < drifts["w8a8-uniform"]


def test_heads_are_left_alone_and_said_so(encoder, statistics):
    quantized, report = quantize(encoder, "w8a8-pwlq", statistics)
    heads = [site for site in report.sites if "_head." in site.site]
    assert heads
    assert all(site.format == "float" and site.excluded for site in heads)
    assert type(quantized.lm_head.dense) is nn.Linear


def test_modules_become_their_twins(encoder, statistics):
    quantized, _ = quantize(encoder, "w8a8-uniform", statistics)
    layer = quantized.layers[0]
    assert isinstance(layer.attn.q_proj, QuantizedLinear)
    assert isinstance(layer.ffn_norm, QuantizedLayerNorm)
    assert isinstance(layer.attn.probs, ActivationQuantizer)
    weights_only, _ = quantize(encoder, "w8")
    assert weights_only.layers[0].attn.q_proj.input_quantizer is None
    assert type(weights_only.layers[0].attn.probs) is type(encoder.layers[0].attn.probs)


def test_codes_of_a_weight_give_back_the_weight_in_use(encoder):
    quantized, _ = quantize(encoder, "w4")
    linear = quantized.layers[0].ffn.up_proj
    encoded = linear.weight_codes()
    assert encoded.codes.dtype == torch.int8
    assert (encoded.codes.min(), encoded.codes.max()) == (-7, 7)
    assert torch.equal(linear.weight_quantizer.decode(encoded), linear.weight)


def test_bytes_are_those_of_packed_codes_and_scales(encoder):
    _, report = quantize(encoder, "w4")
    site = next(site for site in report.sites if site.site == "layers.0.ffn.up_proj.weight")
    assert site.bytes == 64 * 32 // 2 + 64 * 4
    assert site.effective_bits == 4 + 32 / 32
    quantized = [site for site in report.sites if site.format != "float" and site.bytes is not None]
    saved = sum(4 * site.elements - site.bytes for site in quantized)
    assert report.weight_bytes == report.float_weight_bytes - saved
    assert report.float_weight_bytes == sum(4 * p.numel() for p in encoder.parameters())


def test_the_bit_that_tells_middle_from_tail_is_counted(encoder, statistics):
    assert quantize(encoder, "w8a8-pwlq", statistics)[1].activation_bits == 9
    assert quantize(encoder, "w8a8-uniform", statistics)[1].activation_bits == 8
    noln = quantize(encoder, "w8a8-uniform-noln", statistics)[1].activation_bits
    assert 8 < noln < 32


def test_scales_of_tokens_are_counted(encoder, statistics):
    recipe = Recipe(kinds={"norm_input": {"format": "uniform", "bits": 8, "granularity": "token"}})
    _, report = quantize(encoder, recipe, statistics)
    site = next(site for site in report.sites if site.site == "layers.0.attn_norm.input")
    assert site.effective_bits == 8 + 32 / 32
    assert site.snr_db > 30


def test_signal_to_noise_of_a_layer_norm_input_is_told_before_and_after_it(encoder, statistics):
    _, report = quantize(encoder, "w8a8-uniform", statistics)
    frame = report.to_frame().set_index("site")
    row = frame.loc["layers.0.attn_norm.input"]
    assert 0 < row.snr_after_norm_db < row.snr_db + 3
    assert frame.snr_after_norm_db.notna().sum() == (frame.kind == "norm_input").sum() - 1  # the head's


def test_weights_that_lose_nothing_have_infinite_signal_to_noise():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].weight.data = torch.tensor([[127.0, 1.0], [-127.0, 0.0]])
    _, report = quantize(model, Recipe(kinds={"linear_weight": EIGHT}))
    assert report.sites[0].snr_db == math.inf
    assert report.sites[0].clipped == 0


def test_the_share_that_is_clipped_is_told():
    model = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    recipe = Recipe.from_dict(
        {
            "calibration": {"range": "percentile", "percentile": 90},
            "kinds": {"linear_input": {"format": "uniform", "symmetric": False}},
        }
    )
    _, report = quantize(model, recipe, calibrate(model, [x]))
    assert report.sites[1].clipped == pytest.approx(0.2, abs=0.15)


def test_a_quantized_model_is_saved_with_its_ranges(encoder, statistics, tokens):
    quantized, _ = quantize(encoder, "w8a8-pwlq", statistics)
    other, _ = quantize(encoder, "w8a8-pwlq", dict.fromkeys(statistics, statistics["layers.0.attn_norm.input"]))
    assert not torch.equal(hidden(other, tokens[0]), hidden(quantized, tokens[0]))
    state = {name: value for name, value in quantized.state_dict().items() if "quantizer" in name}
    assert len(state) > 50
    other.load_state_dict(quantized.state_dict())
    assert torch.equal(hidden(other, tokens[0]), hidden(quantized, tokens[0]))


def test_in_place_changes_the_model_itself(tokens):
    model = nn.Sequential(nn.Linear(4, 4))
    quantized, _ = quantize(model, "w8", inplace=True)
    assert quantized is model
    assert isinstance(model[0], QuantizedLinear)


def test_a_module_that_hangs_at_two_places_is_replaced_at_both():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    quantized, report = quantize(Shared(), "w8")
    assert quantized.first is quantized.second
    assert isinstance(quantized.second, QuantizedLinear)
    assert len(report.sites) == 2


def test_a_layer_norm_without_gain_has_its_input_quantized_only():
    model = nn.Sequential(nn.LayerNorm(8, elementwise_affine=False))
    quantized, report = quantize(model, "w8a8-uniform", calibrate(model, [torch.randn(4, 8)]))
    assert [site.kind for site in report.sites] == ["norm_input"]
    assert quantized(torch.randn(2, 8)).shape == (2, 8)


def test_a_nan_names_the_site_it_reached(encoder, statistics, tokens):
    quantized, _ = quantize(encoder, "w8a8-uniform", statistics)
    with torch.no_grad():
        quantized.embedding.weight[5, 0] = float("nan")
    with pytest.raises(ProtquantError, match=r"site layers\.0\.attn_norm\.input"):
        quantized(tokens[0])


def test_a_weight_that_is_not_finite_names_the_site():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].weight.data[0, 0] = float("inf")
    with pytest.raises(ProtquantError, match=r"site 0\.weight"):
        quantize(model, "w8")


def test_a_format_that_does_not_fit_names_the_site(encoder):
    kinds = {"linear_weight": {"format": "uniform", "granularity": "token"}}
    with pytest.raises(ProtquantError, match=r"site layers\.0\.attn\.q_proj\.weight"):
        quantize(encoder, Recipe(kinds=kinds))


def test_missing_statistics_are_named(encoder, statistics):
    with pytest.raises(ProtquantError, match=r"layers\.0\.attn_norm\.input"):
        quantize(encoder, "w8a8-pwlq")
    fewer = {name: seen for name, seen in statistics.items() if name != "layers.1.attn.k"}
    with pytest.raises(ProtquantError, match=r"layers\.1\.attn\.k"):
        quantize(encoder, "w8a8-pwlq", fewer)


def test_a_quantized_model_is_not_quantized_again(encoder):
    with pytest.raises(ProtquantError, match="already"):
        quantize(quantize(encoder, "w8")[0], "w4")
    with pytest.raises(ProtquantError, match="wrap"):
        quantize(nn.Linear(2, 2), "w8")


def test_a_plan_changes_nothing_and_needs_no_calibration(encoder):
    assignments = plan(encoder, "w8a8-pwlq")
    assert [a.site.name for a in assignments] == [site.name for site in find_sites(encoder)]
    assert {a.format is None for a in assignments if not a.excluded} == {False}
