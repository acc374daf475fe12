"""Statistics are gathered once for what they depend on, and again for anything else."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from protquant.models import ESM2
from protquant.quant import Examples, MemoryCache, Recipe, calibration_key, load_recipe, model_hash, quantize

RECIPES = ("w8a8-uniform", "w8a8-uniform-noln")


class Counting:
    """Runs the model, and counts."""

    calls = 0


def forward(model: nn.Module, tokens: Tensor) -> object:
    Counting.calls += 1
    return model(tokens)


def forward_with(model: nn.Module, tokens: Tensor, num_recycles: int) -> object:
    return model(tokens)


def smoothed(alpha: float) -> Recipe:
    recipe = load_recipe("w8a8-uniform")
    return Recipe(kinds=recipe.kinds, steps=[{"step": "smoothquant", "alpha": alpha}])


def calls_of(model: ESM2, recipe: str | Recipe, tokens: list[Tensor], cache: MemoryCache) -> int:
    Counting.calls = 0
    quantize(model, recipe, examples=Examples(tuple(tokens), forward), cache=cache)
    return Counting.calls


def test_another_recipe_on_the_same_model_does_not_run_it(encoder: ESM2, tokens: list[Tensor]):
    cache = MemoryCache()
    assert calls_of(encoder, RECIPES[0], tokens, cache) == len(tokens)
    assert calls_of(encoder, RECIPES[1], tokens, cache) == 0


def test_a_changed_weight_is_another_model(encoder: ESM2, tokens: list[Tensor]):
    cache = MemoryCache()
    calls_of(encoder, RECIPES[0], tokens, cache)
    other = copy.deepcopy(encoder)
    assert calls_of(other, RECIPES[0], tokens, cache) == 0
    with torch.no_grad():
        other.layers[1].ffn.down_proj.weight[3, 5] += 1e-6
    assert calls_of(other, RECIPES[0], tokens, cache) == len(tokens)


def test_other_sequences_are_gathered_anew(encoder: ESM2, tokens: list[Tensor]):
    cache = MemoryCache()
    calls_of(encoder, RECIPES[0], tokens, cache)
    assert calls_of(encoder, RECIPES[0], tokens[:2], cache) == 2


def test_what_steps_have_changed_is_kept_apart_from_the_float_model(encoder: ESM2, tokens: list[Tensor]):
    cache = MemoryCache()
    plain = calls_of(encoder, "w8a8-uniform", tokens, cache)
    # The step itself looks at what passes every time; what follows it does so once.
    sweep = calls_of(encoder, smoothed(0.5), tokens, cache) - plain
    assert calls_of(encoder, smoothed(0.5), tokens, cache) == sweep
    assert calls_of(encoder, smoothed(0.25), tokens, cache) == sweep + plain


@pytest.mark.parametrize("recipe", [RECIPES[0], smoothed(0.5)], ids=["uniform", "smoothquant"])
def test_results_are_the_same_to_the_bit_with_and_without(encoder: ESM2, tokens: list[Tensor], recipe: str | Recipe):
    cache = MemoryCache()
    examples = Examples(tuple(tokens), forward)
    models = [quantize(encoder, recipe, examples=examples, cache=each)[0] for each in (None, cache, cache)]
    with torch.no_grad():
        first, *others = [model.logits(tokens[0]) for model in models]
    assert all(torch.equal(first, other) for other in others)


def test_settings_of_the_run_count_and_functions_without_a_name_are_not_cached(encoder: ESM2, tokens: list[Tensor]):
    def key(call: object) -> str | None:
        return calibration_key(encoder, tokens, call, depth=64, sample_size=100)  # type: ignore[arg-type]

    once, twice = (key(partial(forward_with, num_recycles=n)) for n in (1, 2))
    assert once is not None and twice is not None and once != twice
    assert key(lambda model, tokens: model(tokens)) is None
    assert calibration_key(encoder, [object()], forward, depth=64, sample_size=100) is None


def test_a_models_hash_is_of_what_it_computes_with(encoder: ESM2):
    other = copy.deepcopy(encoder)
    other.source = "elsewhere"
    other.train()
    assert model_hash(other) == model_hash(encoder)
    other.layers[0].attn_norm.eps = 1e-3
    assert model_hash(other) != model_hash(encoder)


def test_what_was_used_longest_ago_is_forgotten_first(statistics):
    size = 4 * sum(len(s.sample) for s in {id(s): s for s in statistics.values()}.values())
    cache = MemoryCache(limit=3 * size)
    for key in ("a", "b"):
        cache.put(key, statistics)
    cache.get("a")
    cache.put("c", statistics)
    assert cache.get("b") is None
    assert cache.get("a") is not None
