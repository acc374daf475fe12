"""The language model's layers are recorded when a batch lies as the one before did; what is recorded must be all."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from protquant.integer import language_model as language_model_module
from protquant.integer.language_model import IntegerESM2
from protquant.integer.recording import Recorder
from protquant.kernels.backend import Backend
from protquant.kernels.cpu import CPUBackend
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models import ESM2, ESM2Config
from protquant.models.alphabet import MASK, PAD, tokenize
from protquant.quant import calibrate, load_recipe, quantize

SEQUENCES = ["MKTAYIAKQRQISF", "GSHMLEDPVDAF", "GIV"]


def integer_model(recipe: str = "w8a8-int8", backend: Backend | None = None) -> IntegerESM2:
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=2, dim=64, num_heads=4, ffn_dim=96)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape) + (1.0 if parameter.ndim == 1 else 0.0))
    statistics = calibrate(model, [tokenize([sequence]) for sequence in SEQUENCES], lambda m, tokens: m.logits(tokens))
    quantized = quantize(model, load_recipe(recipe), statistics)[0].eval()
    return IntegerESM2(quantized, backend or ReferenceBackend())


def test_masks_that_wander_along_a_protein_are_replayed(tapes: Any):
    model = integer_model()
    launched = model.with_recorder(records=False)
    tapes.calls = model.backend.calls
    tokens = tokenize(SEQUENCES)
    counts = []
    for position in range(1, 5):
        masked = tokens.clone()
        masked[0, position] = MASK
        expected = launched.logits(masked)
        model.backend.calls.clear()
        assert torch.equal(model.logits(masked), expected)
        counts.append(dict(model.backend.calls))
    assert tapes.replays == [3] and model.recorder.is_recorded and not launched.recorder.is_recorded
    assert counts[0] and counts == [counts[0]] * 4


def test_tokens_elsewhere_are_another_recording(tapes: Any):
    """Of the same lengths: positions go into the rotary embedding, and so into what is recorded."""
    model = integer_model()
    tokens = tokenize(SEQUENCES[:2])
    moved = torch.cat((torch.full((2, 1), PAD), tokens), 1)
    wider = torch.cat((tokens, torch.full((2, 1), PAD)), 1)
    expected = [model.with_recorder(records=False).logits(each) for each in (tokens, moved, wider)]
    for _ in range(2):
        for each, logits in zip((tokens, moved, wider), expected, strict=True):
            assert torch.equal(model.logits(each), logits)
    assert tapes.replays == []
    for _ in range(2):
        assert torch.equal(model.logits(moved), expected[1])
    assert tapes.replays == [1]


def test_what_else_is_asked_for_is_not_recorded(tapes: Any):
    model = integer_model()
    tokens = tokenize(SEQUENCES)
    for _ in range(3):
        model(tokens, return_hidden=True)
        model(tokens, return_attentions=True)
        model.contacts(tokens[:1, :16])
    assert tapes.replays == [] and not model.recorder.is_recorded
    plain = [model(tokens).last_hidden for _ in range(3)]
    assert tapes.replays == [2] and torch.equal(plain[0], plain[1]) and torch.equal(plain[0], plain[2])


@pytest.mark.parametrize("why", ["attention elsewhere", "simulated attention", "too many tokens"])
def test_what_may_wait_for_the_device_is_not_recorded(why: str, tapes: Any, monkeypatch: pytest.MonkeyPatch):
    if why == "too many tokens":
        monkeypatch.setattr(language_model_module, "_MOST_TOKENS", 30)
    recipe = "w8a8-uniform" if why == "simulated attention" else "w8a8-int8"
    model = integer_model(recipe, CPUBackend() if why == "attention elsewhere" else None)
    for _ in range(3):
        model.logits(tokenize(SEQUENCES))
    assert tapes == []


def test_a_recorder_that_is_switched_off_forgets(tapes: Any):
    recorder = Recorder()
    prepared = []

    def prepare() -> Callable[[Tensor], tuple[Tensor]]:
        prepared.append(1)
        return lambda x: (x + 1,)

    for _ in range(4):
        assert recorder.run("same", prepare, torch.ones(2))[0].tolist() == [2, 2]
    assert (tapes.replays, len(prepared), recorder.is_recorded) == ([3], 2, True)
    recorder.records = False
    recorder.run("same", prepare, torch.ones(2))
    assert (tapes.replays, len(prepared), recorder.is_recorded) == ([3], 3, False)


def test_a_first_run_that_fails_was_none(tapes: Any):
    recorder, problems = Recorder(), [RuntimeError("no memory"), None, None]

    def run(x: Tensor) -> tuple[Tensor]:
        if problem := problems.pop(0):
            raise problem
        return (x,)

    with pytest.raises(RuntimeError, match="no memory"):
        recorder.run("same", lambda: run, torch.ones(2))
    recorder.run("same", lambda: run, torch.ones(2))
    assert tapes == [] and not recorder.is_recorded


def test_a_model_is_gone_when_nobody_holds_it(tapes: Any):
    model = integer_model()
    for _ in range(2):
        model.logits(tokenize(SEQUENCES))
    assert tapes.replays == [1]
    left = weakref.ref(model)
    del model
    assert left() is None
