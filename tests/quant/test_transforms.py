"""Scaling along links leaves the float function, and changes what is quantized."""

import copy

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize
from protquant.quant import calibrate
from protquant.quant.transforms import Divide, LinkLayers, TransformedLinear
from protquant.topology import Link, find_links

SEQUENCE = "MKTVRQERLKSIVRILERSK"


@pytest.mark.parametrize("fold", [False, True], ids=["esm2", "esmfold"])
def test_outputs_stay_when_every_link_is_scaled(esmfold: ESMFold, fold: bool):
    model = copy.deepcopy(esmfold).double().eval()

    def outputs() -> list[torch.Tensor]:
        with torch.no_grad():
            if fold:
                result = model(encode_complexes([SEQUENCE]), num_recycles=1)
                return [result.positions, result.plddt_logits, result.pae_logits]
            return [model.lm.logits(tokenize([SEQUENCE])), model.lm.contacts(tokenize([SEQUENCE]))]

    before = outputs()
    root = model if fold else model.lm
    scaled = 0
    for link in find_links(root):
        layers = LinkLayers(root, link)
        channels = next(iter(layers.readers.values())).in_features
        layers.scale(torch.rand(channels, dtype=torch.float64) * 3 + 0.2)
        scaled += 1
    assert scaled >= 8
    for ours, theirs in zip(outputs(), before, strict=True):
        assert (ours - theirs).abs().max().item() <= 1e-5 * theirs.abs().max().item()


def test_a_scale_is_folded_where_there_is_a_writer_and_runs_where_there_is_none(encoder: ESM2):
    model = copy.deepcopy(encoder)
    norm = LinkLayers(model, Link(("layers.0.ffn.up_proj",), "layers.0.ffn_norm"))
    norm.scale(torch.full((32,), 2.0))
    assert torch.equal(model.layers[0].ffn_norm.weight, encoder.layers[0].ffn_norm.weight / 2)
    assert not isinstance(model.layers[0].ffn.up_proj, TransformedLinear)
    behind_gelu = LinkLayers(model, Link(("layers.0.ffn.down_proj",)))
    behind_gelu.scale(torch.full((64,), 4.0))
    layer = model.layers[0].ffn.down_proj
    assert isinstance(layer, TransformedLinear)
    assert isinstance(layer.transforms[0], Divide)
    assert torch.equal(layer.weight, encoder.layers[0].ffn.down_proj.weight * 4)


def test_calibration_sees_what_comes_out_of_a_transform(encoder: ESM2, tokens, statistics):
    model = copy.deepcopy(encoder)
    LinkLayers(model, Link(("layers.0.ffn.down_proj",))).scale(torch.full((64,), 4.0))
    site = "layers.0.ffn.down_proj.input"
    seen = calibrate(model, tokens, sites=[site])[site]
    assert seen.maximum == pytest.approx(statistics[site].maximum / 4)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_would_destroy_the_weights_is_refused(encoder: ESM2, bad: float):
    scale = torch.ones(32)
    scale[3] = bad
    with pytest.raises(ProtquantError, match="positive and finite"):
        LinkLayers(copy.deepcopy(encoder), Link(("layers.0.ffn.up_proj",), "layers.0.ffn_norm")).scale(scale)
