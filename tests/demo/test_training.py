"""Training goes on where it was stopped, as if it had not been."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from protquant.demo.checkpoint import save_training_state
from protquant.demo.sizes import LANGUAGE_MODEL
from protquant.demo.train_folding import Stage, train
from protquant.demo.train_language_model import mask_tokens
from protquant.demo.train_language_model import train as train_language_model
from protquant.models import ESM2, tokenize
from protquant.models.alphabet import CLS, EOS, MASK, PAD
from protquant.structures import Reference, load_references, reference_from_atoms

SEQUENCES = [reference.sequence for reference in load_references(limit=4)]


def test_a_tenth_of_the_chosen_tokens_is_kept_and_only_residues_are_chosen():
    tokens = tokenize(SEQUENCES * 40)
    corrupted, chosen = mask_tokens(tokens, torch.Generator().manual_seed(0))
    special = (tokens == CLS) | (tokens == EOS) | (tokens == PAD)
    assert not (chosen & special).any()
    assert (corrupted[~chosen] == tokens[~chosen]).all()
    share = chosen.sum() / (~special).sum()
    masked = (corrupted[chosen] == MASK).float().mean()
    same = (corrupted[chosen] == tokens[chosen]).float().mean()
    assert abs(share - 0.15) < 0.01
    assert abs(masked - 0.8) < 0.02
    assert abs(same - 0.1 - 0.1 / 20) < 0.02


def interrupted_after_the_first_save(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make the trainer of `module` save its state once and stop, as a user would stop it."""

    def save_and_stop(*arguments: Any) -> None:
        save_training_state(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"protquant.demo.{module}.save_training_state", save_and_stop)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_language_model_training_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = {"steps": 4, "batch": 2, "crop": 24, "save_every": 2}
    whole = train_language_model(SEQUENCES, tmp_path / "whole", **settings)
    with monkeypatch.context() as patched:
        interrupted_after_the_first_save(patched, "train_language_model")
        with pytest.raises(KeyboardInterrupt):
            train_language_model(SEQUENCES, tmp_path / "parts", **settings)
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 2
    assert_same_weights(whole, train_language_model(SEQUENCES, tmp_path / "parts", **settings))


def start_of(reference: Reference) -> Reference:
    """Return the first 24 residues of a chain: what training does takes no more."""
    return reference_from_atoms(reference.atoms[reference.atoms.res_id < reference.atoms.res_id[0] + 24])


def test_folding_training_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    lm_state = ESM2(LANGUAGE_MODEL).state_dict()
    stages = (
        Stage(steps=2, batch=2, updates=0.0, recycles=0.0, structure=0.5, pose=1.0, clamp=30.0),
        Stage(steps=1, batch=1, updates=1.0, recycles=1.0, structure=1.0, pose=0.1, clamp=10.0),
    )
    settings = {
        "references": [start_of(each) for each in load_references(limit=2)],
        "stages": stages,
        "evaluate_every": 1,
    }
    whole = train(lm_state, tmp_path / "whole", **settings)
    with monkeypatch.context() as patched:
        interrupted_after_the_first_save(patched, "train_folding")
        with pytest.raises(KeyboardInterrupt):
            train(lm_state, tmp_path / "parts", **settings)
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 1
    assert_same_weights(whole, train(lm_state, tmp_path / "parts", **settings))
