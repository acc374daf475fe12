"""The language model's layers are recorded when a batch lies as the one before did; what is recorded must be all."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from protquant.integer import language_model as language_model_module
from protquant.integer import recording as recording_module
from protquant.integer.language_model import IntegerESM2, integer_language_model
from protquant.integer.recording import Recorder
from protquant.kernels.backend import Backend
from protquant.kernels.cpu import CPUBackend
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models import ESM2, ESM2Config
from protquant.models.alphabet import MASK, PAD, tokenize
from protquant.quant import calibrate, load_recipe, quantize

SEQUENCES = ["MKTAYIAKQRQISF", "GSHMLEDPVDAF", "GIV"]


class Tape:
    """Stands for a CUDA graph on a machine without a GPU: runs again what it was given, uncounted."""

    replays = 0
    calls: Counter[tuple[str, str]]

    def __init__(self, run: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> None:
        self.run = run
        self.run(*(x.clone() for x in inputs))

    def replay(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        Tape.replays += 1
        before = self.calls.copy()
        outputs = self.run(*(x.clone() for x in inputs))
        self.calls.clear()
        self.calls.update(before)
        return outputs


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> type[Tape]:
    monkeypatch.setattr(Tape, "replays", 0)
    monkeypatch.setattr(Tape, "calls", Counter(), raising=False)
    monkeypatch.setattr(recording_module, "Recording", Tape)
    monkeypatch.setattr(recording_module, "_DEVICES", ("cpu",))
    return Tape


def integer_model(recipe: str = "w8a8-int8", backend: Backend | None = None) -> IntegerESM2:
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=2, dim=64, num_heads=4, ffn_dim=96)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape) + (1.0 if parameter.ndim == 1 else 0.0))
    statistics = calibrate(model, [tokenize([sequence]) for sequence in SEQUENCES], lambda m, tokens: m.logits(tokens))
    quantized = quantize(model, load_recipe(recipe), statistics)[0].eval()
    return integer_language_model(quantized, backend or ReferenceBackend())[0]


def test_masks_that_wander_along_a_protein_are_replayed(taped: type[Tape]):
    model = integer_model()
    launched = model.again(records=False)
    taped.calls = model.backend.calls
    tokens = tokenize(SEQUENCES)
    counts = []
    for position in range(1, 5):
        masked = tokens.clone()
        masked[0, position] = MASK
        expected = launched.logits(masked)
        model.backend.calls.clear()
        assert torch.equal(model.logits(masked), expected)
        counts.append(dict(model.backend.calls))
    assert taped.replays == 3 and model.recorder.is_recorded and not launched.recorder.is_recorded
    assert counts[0] and counts == [counts[0]] * 4


def test_tokens_elsewhere_are_another_recording(taped: type[Tape]):
    """Of the same lengths: positions go into the rotary embedding, and so into what is recorded."""
    model = integer_model()
    tokens = tokenize(SEQUENCES[:2])
    moved = torch.cat((torch.full((2, 1), PAD), tokens), 1)
    wider = torch.cat((tokens, torch.full((2, 1), PAD)), 1)
    expected = [model.again(records=False).logits(each) for each in (tokens, moved, wider)]
    for _ in range(2):
        for each, logits in zip((tokens, moved, wider), expected, strict=True):
            assert torch.equal(model.logits(each), logits)
    assert taped.replays == 0
    for _ in range(2):
        assert torch.equal(model.logits(moved), expected[1])
    assert taped.replays == 1


def test_what_else_is_asked_for_is_not_recorded(taped: type[Tape]):
    model = integer_model()
    tokens = tokenize(SEQUENCES)
    for _ in range(3):
        model(tokens, return_hidden=True)
        model(tokens, return_attentions=True)
        model.contacts(tokens[:1, :16])
    assert taped.replays == 0 and not model.recorder.is_recorded
    plain = [model(tokens).last_hidden for _ in range(3)]
    assert taped.replays == 2 and torch.equal(plain[0], plain[1]) and torch.equal(plain[0], plain[2])


@pytest.mark.parametrize("why", ["attention elsewhere", "simulated attention", "too many tokens"])
def test_what_may_wait_for_the_device_is_not_recorded(why: str, taped: type[Tape], monkeypatch: pytest.MonkeyPatch):
    if why == "too many tokens":
        monkeypatch.setattr(language_model_module, "_MOST_TOKENS", 30)
    recipe = "w8a8-uniform" if why == "simulated attention" else "w8a8-int8"
    model = integer_model(recipe, CPUBackend() if why == "attention elsewhere" else None)
    for _ in range(3):
        model.logits(tokenize(SEQUENCES))
    assert taped.replays == 0


def test_a_recorder_that_is_switched_off_forgets(taped: type[Tape]):
    recorder = Recorder()
    prepared = []

    def prepare() -> Callable[[Tensor], tuple[Tensor]]:
        prepared.append(1)
        return lambda x: (x + 1,)

    for _ in range(4):
        assert recorder.run("same", prepare, torch.ones(2))[0].tolist() == [2, 2]
    assert (taped.replays, len(prepared), recorder.is_recorded) == (3, 2, True)
    recorder.records = False
    recorder.run("same", prepare, torch.ones(2))
    assert (taped.replays, len(prepared), recorder.is_recorded) == (3, 3, False)
