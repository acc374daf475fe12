"""Skipping what comes before a change gives what computing all of it gives, to the bit."""

import pytest
import torch
from torch import Tensor, nn

from protquant.models import ESM2, ESMFold, encode_complexes
from protquant.quant.replay import Replay
from protquant.topology import find_chains

SEQUENCES = ["MKTVRQERLKSIVR", "GSHMLEDPVDAF"]


def fold(model: nn.Module, sequence: str) -> list[Tensor]:
    output = model(encode_complexes([sequence]), num_recycles=1)
    return [output.positions, output.distogram_logits]


def encode(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    assert isinstance(model, ESM2)
    return [model.logits(tokens), model.contacts(tokens)]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@torch.no_grad()
def test_any_linear_layer_may_be_what_changed(esmfold: ESMFold):
    replay = Replay(esmfold, SEQUENCES, fold)
    before = [replay.record(index) for index in range(2)]
    linears = [(path, module) for path, module in esmfold.named_modules() if isinstance(module, nn.Linear)]
    for path, module in linears[::5]:
        weight = module.weight.data
        module.weight.data = weight * 1.5
        try:
            assert_equal(replay.run(1, {path}), fold(esmfold, SEQUENCES[1]))
        finally:
            module.weight.data = weight
    assert_equal(fold(esmfold, SEQUENCES[1]), before[1])


def test_blocks_before_the_change_are_not_computed(encoder: ESM2, tokens: list[Tensor]):
    replay = Replay(encoder, tokens, lambda model, tokens: [model.contacts(tokens)])
    expected = replay.record(0)
    computed: list[str] = []
    handles = [
        encoder.get_submodule(f"{path}.ffn").register_forward_hook(lambda *_, path=path: computed.append(path))
        for chain in find_chains(encoder)
        for path in chain
    ]
    try:
        assert_equal(replay.run(0, {"layers.1.attn.q_proj"}), expected)
    finally:
        for handle in handles:
            handle.remove()
    assert set(computed) == {"layers.1"}
    assert all("forward" not in vars(module) for module in encoder.modules())


@pytest.mark.parametrize("limit", [0, 2**31])
def test_what_does_not_fit_is_computed_from_the_beginning(encoder: ESM2, tokens: list[Tensor], limit: int):
    replay = Replay(encoder, tokens, encode, limit=limit)
    expected = replay.record(2)
    assert_equal(replay.run(2, {"layers.0.ffn.up_proj"}), expected)
