"""fair-esm's files load whole, and give the model that transformers' layout gives."""

import pickle
from pathlib import Path
from typing import Any

import omegaconf
import pytest
import torch
from esm import pretrained
from esm.model import esm2 as fair_esm
from transformers import EsmForMaskedLM

from protquant.checkpoints import load_fair_esm, load_hugging_face
from protquant.checkpoints.fair_esm import STEM
from protquant.checkpoints.names import FAIR_ESM_ESM2
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize

TOKENS = tokenize(["MKTAYIAKQRQISFVKSHFSRQ", "GSHMKT"])


def edit(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=False)
    torch.save(content | changes, path)


def state_of(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=False)["model"]
    return state


@torch.no_grad()
def test_esm2_equals_fair_esm(fair_esm2_file: Path, fair_esm2: fair_esm.ESM2) -> None:
    model = load_fair_esm(fair_esm2_file)
    assert isinstance(model, ESM2)
    expected = fair_esm2(TOKENS, return_contacts=True)
    valid = TOKENS != 1
    torch.testing.assert_close(model.logits(TOKENS)[valid], expected["logits"][valid], atol=1e-4, rtol=0)
    contacts = model.contacts(TOKENS)
    torch.testing.assert_close(contacts[0], expected["contacts"][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(contacts[1, :6, :6], expected["contacts"][1, :6, :6], atol=1e-4, rtol=0)


def test_file_is_of_the_form_that_fair_esm_reads(fair_esm2_file: Path) -> None:
    """The releases cannot be had here; that fair-esm's own loader takes our imitation says it is faithful."""
    data = torch.load(fair_esm2_file, weights_only=False)
    regression = torch.load(fair_esm2_file.with_name("esm2_t3_tiny-contact-regression.pt"))
    pretrained.load_model_and_alphabet_core("esm2_t3_tiny", data, regression)


def test_esm2_equals_the_same_model_from_transformers(
    hugging_face_esm2: EsmForMaskedLM, fair_esm2_file: Path, tmp_path: Path
) -> None:
    ours = load_fair_esm(fair_esm2_file)
    names = {FAIR_ESM_ESM2.to_theirs(name): name for name in ours.state_dict()}
    assert None not in names
    from_fair = {theirs: ours.state_dict()[name] for theirs, name in names.items()}
    del from_fair
    hugging_face_esm2.save_pretrained(tmp_path / "folder")
