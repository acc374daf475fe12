"""Baselines compute what our float models do, on the same tensors: else ratios compare different work."""

import sys

import pytest
import torch
from torch import nn

from protquant.bench import LM_BASELINES, TRUNK_BASELINES
from protquant.bench.baselines_lm import hugging_face_esm2, lm_baseline, random_esm2
from protquant.bench.baselines_trunk import TrunkWork, hugging_face_block, trunk_baseline
from protquant.bench.workloads import LanguageWork, language_work
from protquant.demo.sizes import FOLDING_MODEL
from protquant.errors import ProtquantError
from protquant.models import ESM2Config
from protquant.models.trunk import TrunkConfig
from protquant.running.random_weights import randomize

SMALL = TrunkConfig(single_dim=64, pair_dim=32, single_head_dim=16, pair_head_dim=8)
SMALL_LM = ESM2Config(num_layers=3, dim=40, num_heads=5, ffn_dim=160)
LENGTH = 19


@pytest.fixture(scope="module")
def trunk() -> TrunkWork:
    return TrunkWork.random(SMALL, LENGTH)


@pytest.fixture(scope="module")
def sentences() -> LanguageWork:
    return LanguageWork(["MKTAYIAKQRQISFVKSHFSRQ", "GIVEQCC", "ACDEFGHIKLMNPQRSTVWYACDEFGHIKLMNPQRSTVWY"])


@pytest.mark.parametrize("name", TRUNK_BASELINES)
def test_blocks_agree(name: str, trunk: TrunkWork):
    with torch.inference_mode():
        single, pair = trunk.blocks(trunk.single, trunk.pair, trunk.mask)
    found = trunk_baseline(name, trunk)()
    assert found[1].dtype == (torch.bfloat16 if "bfloat16" in name else torch.float32)
    tolerance = 0.05 if "bfloat16" in name else 1e-5
    for update, expected in (
        (found[0] - trunk.single, single - trunk.single),
        (found[1] - trunk.pair, pair - trunk.pair),
    ):
        assert torch.linalg.vector_norm(update - expected) < tolerance * torch.linalg.vector_norm(expected)


def test_transformers_block_has_our_tensors_and_no_others(trunk: TrunkWork):
    theirs = hugging_face_block(trunk.blocks[0], SMALL)
    ours = {parameter.data_ptr() for parameter in trunk.blocks.parameters()}
    assert {parameter.data_ptr() for parameter in theirs.parameters()} == ours


def test_every_run_starts_from_the_same_representations(trunk: TrunkWork):
    def doubles(single: torch.Tensor, pair: torch.Tensor, mask: torch.Tensor, chunk: None) -> tuple[torch.Tensor, ...]:
        return single.mul_(2), pair.mul_(2)  # in place, as the integer block does

    run = trunk.run(doubles, torch.float32)  # type: ignore[arg-type]
    for _ in range(2):
        single, pair = run()
        assert torch.equal(single, 2 * trunk.single) and torch.equal(pair, 2 * trunk.pair)


def test_every_part_of_a_random_block_does_something():
    work = TrunkWork.random(FOLDING_MODEL.trunk, 12)
    with torch.no_grad():
        before = work.blocks(work.single, work.pair, work.mask)[1]
        parts = {n: c for n, c in work.blocks[0].named_children() if next(c.parameters(), None) is not None}
        for name, child in parts.items():
            kept = {key: value.clone() for key, value in child.state_dict().items()}
            for parameter in child.parameters():
                parameter.zero_()
            after = work.blocks(work.single, work.pair, work.mask)[1]
            assert not torch.allclose(before, after, rtol=1e-3), name
            child.load_state_dict(kept)


def test_random_weights_are_the_same_for_a_seed_and_keep_the_size_of_what_passes():
    layers = [nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256), nn.Linear(256, 256)) for _ in range(2)]
    for layer in layers:
        randomize(layer, seed=3)
    x = torch.randn(64, 256)
    assert torch.equal(layers[0](x), layers[1](x))
    assert 0.7 < layers[0](x).std() < 1.4


@pytest.mark.parametrize("name", [name for name in LM_BASELINES if name not in ("esm-cpp-w8a8", "torchao-int8")])
def test_language_models_agree_on_real_tokens(name: str, sentences: LanguageWork):
    model = random_esm2(SMALL_LM)
    with torch.inference_mode():
        expected = model.logits(sentences.tokens)[sentences.valid]
    found = lm_baseline(name, model, sentences)()[sentences.valid].float()
    tolerance = 0.05 if "bfloat16" in name else 1e-4
    assert torch.linalg.vector_norm(found - expected) < tolerance * torch.linalg.vector_norm(expected)


def test_transformers_model_attends_as_it_is_told():
    model = random_esm2(SMALL_LM)
    for attention in ("eager", "sdpa"):
        assert hugging_face_esm2(model, attention).config._attn_implementation == attention


def test_a_package_that_is_missing_is_named(sentences: LanguageWork, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ProtquantError, match="pip install torchao"):
        lm_baseline("torchao-int8", random_esm2(SMALL_LM), sentences)


def test_workloads_are_what_they_say():
    uniform, ragged = language_work("uniform"), language_work("ragged")
    assert uniform.tokens.shape == (8, 256)
    assert bool(uniform.valid.all())
    lengths = [len(sequence) for sequence in ragged.sequences]
    assert (len(lengths), min(lengths) >= 50, max(lengths) <= 400) == (64, True, True)
    assert ragged.tokens.shape == (64, max(lengths) + 2)
    assert ragged.facts()["tokens"] == sum(lengths) + 2 * 64
    assert language_work("ragged").sequences == ragged.sequences
