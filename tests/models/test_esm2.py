"""Our ESM-2 gives what transformers' and fair-esm's give on the same weights."""

import pytest
import torch
from esm.model import esm2 as fair_esm
from torch import Tensor
from transformers import EsmForMaskedLM

from protquant.checkpoints.float_checkpoint import FloatCheckpoint
from protquant.checkpoints.names import FAIR_ESM_ESM2, HUGGING_FACE_ESM2, RenameTable
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config, tokenize
from protquant.models.alphabet import MASK, PAD

CONFIG = ESM2Config(num_layers=3, dim=40, num_heads=5, ffn_dim=160)
RESIDUES = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPD"
BATCHES = {
    "1": [RESIDUES[:1]],
    "7": [RESIDUES[:7]],
    "64": [RESIDUES],
    "padded": [RESIDUES[:31], RESIDUES[:1], "ACDXBUZO", RESIDUES[::-1]],
}


def with_weights_of(reference: torch.nn.Module, table: RenameTable) -> ESM2:
    # What has no name of ours are constants and the tied decoder.
    state = {name: tensor for name, tensor in reference.state_dict().items() if table.to_ours(name)}
    return FloatCheckpoint(lambda: ESM2(CONFIG), state, "reference", table).load()


@pytest.fixture(params=BATCHES)
def tokens(request: pytest.FixtureRequest) -> Tensor:
    return tokenize(BATCHES[request.param])


def masked(tokens: Tensor) -> Tensor:
    """Every fifth residue masked, starting with the second token, so that rows differ in their share of masks."""
    out = tokens.clone()
    out[:, 1::5] = out[:, 1::5].masked_fill(out[:, 1::5] > 3, MASK)
    return out


@torch.no_grad()
@pytest.mark.parametrize("mask", [False, True], ids=["plain", "masked"])
def test_equals_transformers(hugging_face_esm2: EsmForMaskedLM, tokens: Tensor, mask: bool) -> None:
    tokens = masked(tokens) if mask else tokens
    model = with_weights_of(hugging_face_esm2, HUGGING_FACE_ESM2)
    valid = tokens != PAD
    expected = hugging_face_esm2(tokens, attention_mask=valid, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(model.logits(tokens)[valid], expected.logits[valid], atol=1e-4, rtol=0)
    actual = model(tokens, return_hidden=True, return_attentions=True)
    hidden = torch.stack(expected.hidden_states, dim=2)
    torch.testing.assert_close(actual.hidden[valid], hidden[valid], atol=1e-4, rtol=0)
    torch.testing.assert_close(actual.last_hidden[valid], hidden[:, :, -1][valid], atol=1e-4, rtol=0)
    attentions = torch.stack(expected.attentions, dim=1).permute(0, 3, 1, 2, 4)  # query before layers and heads
    torch.testing.assert_close(actual.attentions.permute(0, 3, 1, 2, 4)[valid], attentions[valid], atol=1e-5, rtol=0)


@torch.no_grad()
def test_contacts_equal_transformers(hugging_face_esm2: EsmForMaskedLM, tokens: Tensor) -> None:
    model = with_weights_of(hugging_face_esm2, HUGGING_FACE_ESM2)
    expected = hugging_face_esm2.predict_contacts(tokens, (tokens != PAD).long())
    contacts = model.contacts(tokens)
    for length, ours, theirs in zip((tokens > 3).sum(-1), contacts, expected, strict=True):
        torch.testing.assert_close(ours[:length, :length], theirs[:length, :length], atol=1e-4, rtol=0, equal_nan=False)
    if tokens.shape[1] > 10:
        assert contacts.std() > 0.01  # the comparison is not of constants


@torch.no_grad()
@pytest.mark.parametrize("mask", [False, True], ids=["plain", "masked"])
def test_equals_fair_esm(fair_esm2: fair_esm.ESM2, tokens: Tensor, mask: bool) -> None:
    tokens = masked(tokens) if mask else tokens
    model = with_weights_of(fair_esm2, FAIR_ESM_ESM2)
    expected = fair_esm2(tokens, repr_layers=range(CONFIG.num_layers + 1), return_contacts=True)
    valid = tokens != PAD
    torch.testing.assert_close(model.logits(tokens)[valid], expected["logits"][valid], atol=1e-4, rtol=0)
    hidden = torch.stack([expected["representations"][layer] for layer in range(CONFIG.num_layers + 1)], dim=2)
    actual = model(tokens, return_hidden=True).hidden
    torch.testing.assert_close(actual[valid], hidden[valid], atol=1e-4, rtol=0)
    for length, ours, theirs in zip((tokens > 3).sum(-1), model.contacts(tokens), expected["contacts"], strict=True):
        torch.testing.assert_close(ours[:length, :length], theirs[:length, :length], atol=1e-4, rtol=0)


@torch.no_grad()
def test_padding_changes_nothing(hugging_face_esm2: EsmForMaskedLM) -> None:
    model = with_weights_of(hugging_face_esm2, HUGGING_FACE_ESM2)
    batch, alone = tokenize([RESIDUES[:9], RESIDUES]), tokenize([RESIDUES[:9]])
    torch.testing.assert_close(model.logits(batch)[:1, :11], model.logits(alone), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.contacts(batch)[:1, :9, :9], model.contacts(alone), atol=1e-5, rtol=0)


@torch.no_grad()
def test_half_precision_keeps_rotary_frequencies_exact() -> None:
    model = ESM2(CONFIG)
    exact = model.layers[0].attn.rotary.inverse_frequency.clone()
    model.to(torch.bfloat16)
    assert model.layers[0].attn.q_proj.weight.dtype == torch.bfloat16
    torch.testing.assert_close(model.layers[0].attn.rotary.inverse_frequency, exact, atol=0, rtol=0)


def test_absent_heads_say_so() -> None:
    model = ESM2(ESM2Config(num_layers=1, dim=8, num_heads=2, ffn_dim=8, has_lm_head=False, has_contact_head=False))
    assert not [name for name in model.state_dict() if "head" in name]
    with pytest.raises(ProtquantError, match="no language-model head"):
        model.logits(tokenize(["MKT"]))
    with pytest.raises(ProtquantError, match="no contact head"):
        model.contacts(tokenize(["MKT"]))


@torch.no_grad()
@pytest.mark.parametrize("token_dropout", [True, False])
def test_padding_and_masks_are_embedded_as_nothing_even_alone(token_dropout: bool) -> None:
    """Rows of nothing else have no share of masks that could be divided by."""
    model = ESM2(ESM2Config(num_layers=1, dim=16, num_heads=2, ffn_dim=32, token_dropout=token_dropout))
    tokens = torch.tensor([[PAD] * 4, [MASK] * 4, [5, MASK, 6, PAD], [5, 6, 7, 8]])
    factor = model.embedding_factor(tokens)
    kept = (1 - 0.12) / (1 - torch.tensor([[0.0], [0.0], [1 / 3], [0.0]])) if token_dropout else torch.ones(4, 1)
    there = tokens.ne(PAD) & tokens.ne(MASK) if token_dropout else tokens.ne(PAD)
    torch.testing.assert_close(factor, kept * there)
    assert model.embed(tokens).isfinite().all()
