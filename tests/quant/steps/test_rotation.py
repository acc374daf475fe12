"""Rotating the residual streams leaves the float function, and spreads outliers over channels."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from protquant.checkpoints.quantized import load_quantized, save_quantized
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config, ESMFold, encode_complexes, tokenize
from protquant.models.triangle import TriangleMultiplication
from protquant.quant import Calibration, Examples, Recipe, calibrate, plan, quantize
from protquant.quant.modules import QuantizedRotatedNorm
from protquant.quant.rotations import CenterVectors, RotatedNorm, Rotation
from protquant.quant.steps.rotation import RotateStreams
from protquant.quant.transforms import TransformedLinear
from protquant.topology import find_streams

SEQUENCES = ["MKTVRQERLKSIVRILERSK", "GSHML:AAAK"]
W8 = {"linear_weight": {"format": "uniform", "bits": 8, "granularity": "channel"}}
A8 = {kind: {"format": "uniform", "bits": 8} for kind in ("linear_input", "norm_input")}


def rotated(model: nn.Module, **settings: object) -> nn.Module:
    model = copy.deepcopy(model)
    RotateStreams(**settings).apply(model, plan(model, Recipe(kinds=W8)))
    return model


@torch.no_grad()
def fold_outputs(model: ESMFold) -> dict[str, Tensor]:
    result = model(encode_complexes(SEQUENCES), num_recycles=2)
    names = ("positions", "plddt_logits", "pae_logits", "distogram_logits", "lm_logits", "single", "pair")
    return {name: getattr(result, name) for name in names}


@torch.no_grad()
def lm_outputs(model: ESM2) -> dict[str, Tensor]:
    tokens = tokenize(["MKTVRQERLKSIVRILERSK", "GSHML"])
    hidden = model(tokens, return_hidden=True).hidden
    return {"logits": model.logits(tokens), "contacts": model.contacts(tokens), "hidden": hidden}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], besides: str = "") -> None:
    for name, value in theirs.items():
        if name != besides:
            assert (ours[name] - value).abs().max().item() <= 1e-5 * value.abs().max().item(), name


@pytest.fixture(scope="module")
def exact(esmfold: ESMFold) -> ESMFold:
    return copy.deepcopy(esmfold).double().eval()


@pytest.mark.parametrize("mean", ["carried", "baked"])
@pytest.mark.parametrize("inputs", [(), ("*.down_proj", "*.out_proj", "*.proj")], ids=["folded", "run-time"])
def test_a_fold_stays_with_recycles(exact: ESMFold, mean: str, inputs: tuple[str, ...]):
    assert_same(fold_outputs(rotated(exact, mean=mean, inputs=inputs)), fold_outputs(exact))


def test_an_encoder_stays_with_all_its_hidden_states(exact: ESMFold):
    assert_same(lm_outputs(rotated(exact.lm)), lm_outputs(exact.lm))


def test_an_encoder_with_the_mean_baked_in_loses_nothing_but_the_mean_of_hidden_states(exact: ESMFold):
    before, after = lm_outputs(exact.lm), lm_outputs(rotated(exact.lm, mean="baked"))
    assert_same(after, before, besides="hidden")
    inner = {"hidden": before["hidden"][:, :, :-1] - before["hidden"][:, :, :-1].mean(-1, keepdim=True)}
    assert_same({"hidden": after["hidden"][:, :, :-1]}, inner)
    assert_same({"hidden": after["hidden"][:, :, -1]}, {"hidden": before["hidden"][:, :, -1]})


def test_a_width_without_a_hadamard_matrix_is_rotated_too_and_said_so(caplog: pytest.LogCaptureFixture):
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=2, dim=30, num_heads=3, ffn_dim=40)).double().eval()
    with caplog.at_level(logging.WARNING):
        other = rotated(model)
    assert "no Hadamard matrix of size 30" in caplog.text
    assert "no Hadamard matrix of size 10" in caplog.text
    assert_same(lm_outputs(other), lm_outputs(model))


def test_the_mean_is_baked_only_where_nobody_reads_it(exact: ESMFold):
    model = rotated(exact, mean="baked")
    assert isinstance(model.lm.stream_entry[0], CenterVectors)
    assert model.lm.layers[0].attn_norm.mean_direction is None
    assert isinstance(model.trunk.pair_entry, Rotation)
    assert model.trunk.blocks[0].tri_mul_out.norm.mean_direction.norm().item() == pytest.approx(1)


def test_all_readers_of_a_stream_are_bare_and_all_ways_into_it_turn(exact: ESMFold):
    model = rotated(exact)
    for stream in find_streams(exact):
        assert all(isinstance(model.get_submodule(path), RotatedNorm) for path in stream.norms)
        assert all(isinstance(model.get_submodule(path), Rotation) for path in (*stream.entries, *stream.exits))
    updates = [m.update for m in model.modules() if isinstance(m, TriangleMultiplication)]
    assert updates
    assert all(isinstance(update, Rotation) for update in updates)
    # Values of the trunk are gated, so its projections of them are turned by nothing but the stream.
    assert not any(isinstance(m, TransformedLinear) for m in model.modules())


def test_streams_are_chosen_by_their_entries(exact: ESMFold):
    model = rotated(exact, streams="lm.*", values=False)
    assert isinstance(model.lm.stream_entry, Rotation)
    assert type(model.trunk.pair_entry) is nn.Identity
    with pytest.raises(ProtquantError, match=r"match no residual stream; the model has lm\.stream_entry"):
        rotated(exact, streams=["decoder"])
    with pytest.raises(ProtquantError, match="match no linear layer"):
        rotated(exact, inputs=["decoder"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"mean": "lost"}, "none of carried, baked"), ({"inputs": ["re:("]}, "no regular expression")],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str):
    with pytest.raises(ProtquantError, match=message):
        RotateStreams(**settings)


def test_outliers_of_a_stream_are_spread_over_its_channels(encoder: ESM2, tokens, statistics):
    after = calibrate(rotated(encoder), tokens)
    for layer in (0, 1):
        site = f"layers.{layer}.attn_norm.input"
        before_peak, after_peak = (max(-s.minimum, s.maximum) / s.moments.rms for s in (statistics[site], after[site]))
        assert before_peak > 5  # one channel leads
        assert after_peak < 0.6 * before_peak


def test_rotated_inputs_of_norms_are_quantized_and_lose_less(encoder: ESM2, tokens):
    recipe = {"kinds": W8 | A8, "calibration": Calibration(range="minmax")}
    examples = Examples(tuple(tokens), lambda model, x: model(x))
    _, plain = quantize(encoder, Recipe(**recipe), examples=examples)
    model, report = quantize(encoder, Recipe(**recipe, steps=[{"step": "rotation"}]), examples=examples)
    norm = model.layers[0].attn_norm
    assert isinstance(norm, QuantizedRotatedNorm)
    assert norm.input_quantizer is not None
    before, after = (r.to_frame().set_index("site").snr_after_norm_db for r in (plain, report))
    assert after["layers.0.attn_norm.input"] > before["layers.0.attn_norm.input"] + 6


def test_the_twin_of_a_rotated_norm_computes_what_the_norm_does(encoder: ESM2):
    model = rotated(encoder)
    norm = model.layers[1].ffn_norm
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(QuantizedRotatedNorm(norm)(x), norm(x))


def test_gains_that_are_folded_stay_in_the_report_and_take_nothing(encoder: ESM2, statistics):
    recipe = Recipe(kinds=W8 | {"norm_gain": {"format": "uniform"}}, steps=[{"step": "rotation", "values": False}])
    _, report = quantize(encoder, recipe, statistics)
    sites = {site.site: site for site in report.sites}
    assert "folded" in sites["layers.0.attn_norm.weight"].reason
    assert sites["layers.0.attn_norm.weight"].bytes == 0
    assert sites["final_norm.weight"].format != "float"


def test_what_a_rotation_adds_is_counted(encoder: ESM2):
    steps = [{"step": "rotation", "values": False}]
    plain, turned = (quantize(encoder, Recipe(kinds=W8, steps=each))[1].weight_bytes for each in ([], steps))
    # Signs at the entry and the exit, and a direction for the mean in the place of the gain and bias of 4 norms.
    assert turned - plain == 4 * 32 * (2 + 4 - 8)


def test_a_rotation_in_half_precision_stays_close(encoder: ESM2, tokens):
    model = rotated(encoder, inputs=["*.down_proj"]).to(torch.bfloat16)
    with torch.no_grad():
        ours, theirs = model(tokens[0]).last_hidden.float(), encoder(tokens[0]).last_hidden
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


@pytest.mark.parametrize("mean", ["carried", "baked"])
def test_a_rotated_model_is_saved_and_gives_the_same_to_the_bit(encoder: ESM2, tokens, tmp_path: Path, mean: str):
    steps = [{"step": "rotation", "mean": mean, "inputs": ["*.down_proj"]}]
    model, report = quantize(encoder, Recipe(kinds=W8, steps=steps))
    again = load_quantized(save_quantized(model, report, tmp_path / "model"))
    with torch.no_grad():
        assert torch.equal(again(tokens[0]).last_hidden, model(tokens[0]).last_hidden)


def test_layers_that_read_one_tensor_are_rotated_together_or_not_at_all(encoder: ESM2):
    with pytest.raises(ProtquantError, match=r"match some of the layers that read one tensor, and not .*q_proj"):
        rotated(encoder, inputs=("*.k_proj",))
    model = rotated(encoder, inputs=("*.q_proj", "*.k_proj", "*.v_proj"))
    assert isinstance(model.get_submodule("layers.0.attn.k_proj"), TransformedLinear)
