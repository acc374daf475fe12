import pytest
import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.quant import ACTIVATION_KINDS, calibrate
from protquant.sites import find_sites


class Two(nn.Module):
    """Two layers that read the same, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = self.first(x) + self.second(x)
        return self.second(y)


def test_every_activation_that_is_used_is_seen(encoder, statistics):
    names = [site.name for site in find_sites(encoder) if site.kind in ACTIVATION_KINDS and "_head" not in site.name]
    assert list(statistics) == names


def test_attention_is_seen_as_it_is(statistics, tokens):
    probs = statistics["layers.0.attn.probs"]
    assert probs.minimum >= 0
    assert probs.maximum <= 1
    assert probs.count == sum(4 * t.shape[1] ** 2 for t in tokens)
    assert probs.channel_minimum is None


def test_sites_that_read_the_same_tensor_share_what_was_seen(statistics):
    q, k, v = (statistics[f"layers.0.attn.{name}_proj.input"] for name in "qkv")
    assert q is k is v
    assert q is not statistics["layers.0.attn.out_proj.input"]


def test_a_layer_that_is_called_twice_is_seen_twice():
    seen = calibrate(Two(), [torch.randn(5, 3)])
    assert seen["first.input"].count == 15
    assert seen["second.input"].count == 30
    assert len(seen["second.input"].highest) == 1
    assert "unused.input" not in seen


def test_a_tensor_changed_in_place_is_looked_at_again():
    class InPlace(Two):
        def forward(self, x):
            self.first(x)
            return self.second(x.mul_(10))

    seen = calibrate(InPlace(), [torch.ones(2, 3)])
    assert (seen["first.input"].maximum, seen["second.input"].maximum) == (1, 10)


def test_calibration_leaves_the_model_as_it_was(encoder, tokens):
    encoder.train()
    before = encoder(tokens[0]).last_hidden
    calibrate(encoder, tokens)
    assert encoder.training
    assert torch.equal(encoder(tokens[0]).last_hidden, before)
    assert not any(module._forward_pre_hooks for module in encoder.modules())
    encoder.eval()


def test_only_the_sites_asked_for_are_seen(encoder, tokens):
    name = "layers.1.ffn_norm.input"
    assert list(calibrate(encoder, tokens, sites=[name])) == [name]
    with pytest.raises(ProtquantError, match=r"layers\.9"):
        calibrate(encoder, tokens, sites=["layers.9.ffn_norm.input"])


def test_the_caller_says_how_to_run_the_model(encoder, tokens):
    seen = calibrate(encoder, tokens, lambda model, x: model.logits(x))
    assert "lm_head.dense.input" in seen


def test_no_sequences_are_an_error(encoder):
    with pytest.raises(ProtquantError, match="no sequences"):
        calibrate(encoder, [])


def test_an_overflow_names_its_site(encoder, tokens):
    with pytest.raises(ProtquantError, match=r"site layers\.0\.attn_norm\.input"):
        calibrate(encoder, tokens, lambda model, x: model.layers[0](model.embed(x) * float("inf"), x.eq(1)))
