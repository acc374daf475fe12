from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EsmForMaskedLM

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.measuring import masking
from protquant.measuring.masking import masked_logits
from protquant.models import ESM2, tokenize
from protquant.models.alphabet import MASK
from protquant.scores import logit_kl, masked_accuracy, pseudo_perplexity

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"


@pytest.fixture(scope="module")
def esm2(hugging_face_esm2: EsmForMaskedLM, tmp_path_factory: pytest.TempPathFactory) -> ESM2:
    folder = tmp_path_factory.mktemp("hugging_face")
    hugging_face_esm2.save_pretrained(folder)
    model = load(folder)
    assert isinstance(model, ESM2)
    return model


def transformers_says(model: EsmForMaskedLM, sequence: str, hidden: list[list[int]]) -> np.ndarray:
    """Plainly: one pass for every list of residues that are hidden together."""
    says = np.zeros((len(sequence), 33), np.float32)
    for residues in hidden:
        tokens = tokenize([sequence])
        tokens[0, [i + 1 for i in residues]] = MASK
        with torch.no_grad():
            logits = model(tokens, attention_mask=torch.ones_like(tokens)).logits[0, 1:-1]
        says[residues] = logits[residues]
    return says


def test_one_at_a_time_is_what_transformers_says(esm2: ESM2, hugging_face_esm2: EsmForMaskedLM):
    logits, truth = masked_logits(esm2, SEQUENCE, every=None)
    expected = transformers_says(hugging_face_esm2, SEQUENCE, [[i] for i in range(len(SEQUENCE))])
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    np.testing.assert_array_equal(truth, tokenize([SEQUENCE])[0, 1:-1])
    cross_entropy = torch.nn.functional.cross_entropy(torch.tensor(expected), torch.tensor(truth))
    assert pseudo_perplexity(logits, truth) == pytest.approx(cross_entropy.exp().item(), rel=1e-5)
    assert masked_accuracy(logits, truth) == np.mean(expected.argmax(1) == truth)


def test_every_fourth_is_hidden_with_its_like(esm2: ESM2, hugging_face_esm2: EsmForMaskedLM):
    logits, _ = masked_logits(esm2, SEQUENCE, every=4)
    hidden = [list(range(start, len(SEQUENCE), 4)) for start in range(4)]
    np.testing.assert_allclose(logits, transformers_says(hugging_face_esm2, SEQUENCE, hidden), atol=2e-5)


def test_the_size_of_batches_does_not_matter(esm2: ESM2, monkeypatch: pytest.MonkeyPatch):
    together, _ = masked_logits(esm2, SEQUENCE, every=5)
    monkeypatch.setattr(masking, "_TOKENS_AT_ONCE", 30)  # one pass at a time
    alone, _ = masked_logits(esm2, SEQUENCE, every=5)
    assert logit_kl(alone, together) == pytest.approx(0, abs=1e-9)


def test_more_passes_than_residues_are_one_at_a_time(esm2: ESM2):
    many, _ = masked_logits(esm2, SEQUENCE, every=1000)
    alone, _ = masked_logits(esm2, SEQUENCE, every=None)
    np.testing.assert_allclose(many, alone, atol=1e-5)


def test_letters_that_are_no_amino_acid_are_context_and_not_asked_for(esm2: ESM2):
    logits, truth = masked_logits(esm2, "MKXAY")
    assert logits.shape == (4, 33)
    np.testing.assert_array_equal(truth, tokenize(["MKAY"])[0, 1:-1])


def test_what_cannot_be_asked_is_refused(esm2: ESM2):
    with pytest.raises(ProtquantError, match="single chains"):
        masked_logits(esm2, "MKTAY:GAVLI")
    with pytest.raises(ProtquantError, match="every residue is unknown"):
        masked_logits(esm2, "XXX")
    with pytest.raises(ProtquantError, match="give 1 or more"):
        masked_logits(esm2, SEQUENCE, every=0)


def test_a_model_that_is_broken_is_said_to_be(esm2_checkpoint: Path):
    model = load(esm2_checkpoint)
    assert isinstance(model, ESM2)
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    with pytest.raises(ProtquantError, match="not finite"):
        masked_logits(model, SEQUENCE)
