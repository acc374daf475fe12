"""What recipes claim of integers is what becomes of a model under them."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from small_models import small_sizes

from protquant.errors import ProtquantError
from protquant.integer import integer_claim, to_integer
from protquant.models import ESMFold
from protquant.preparing import quantize
from protquant.quant import QuantizedLinear, Recipe, available_recipes, load_recipe
from protquant.quant.steps import STEPS

SEQUENCE = "GIVEQCCTSICS"
# Trained end to end, which takes long on any model; and what their steps choose are scales, not formats.
TRAINED = {"w4a8-mobilequant", "w8a8-mobilequant"}


def chosen() -> list[str]:
    """All recipes without steps, and one of each list of steps."""
    by_steps: dict[Any, str] = {}
    for name in available_recipes():
        steps = [step.name for step in load_recipe(name).steps]
        if name not in TRAINED:
            by_steps.setdefault(tuple(steps) or name, name)
    return sorted({*by_steps.values()} - {"fp32"})


@pytest.fixture(scope="module")
def model() -> ESMFold:
    trunk = {"num_blocks": 1, "single_dim": 16, "position_bins": 4, "max_recycles": 1}
    lm = {"num_layers": 1, "dim": 16, "num_heads": 2, "ffn_dim": 32}
    torch.manual_seed(0)
    return ESMFold(small_sizes(lm, trunk, {"single_dim": 16, "num_layers": 1})).eval()


def quick(name: str) -> Recipe:
    """The recipe without long searches."""
    recipe = load_recipe(name)
    data = recipe.to_dict()
    for form in data["kinds"].values():
        if form is not None and form.get("breakpoint") == "search":
            form["breakpoint"] = "numeric"
    for step in data["steps"]:
        known = {field.name for field in fields(STEPS[step["step"]])}
        step |= {key: 2 for key in ("grid", "candidates") if key in known}
    return Recipe.from_dict(data)


def left_in_float(model: ESMFold) -> list[str]:
    """Paths of quantized linear layers that are not on integers."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, QuantizedLinear) and path.startswith(("lm.", "trunk."))
    ]


@pytest.mark.parametrize("name", chosen())
def test_a_claim_is_kept_and_its_denial_is_due(name: str, model: ESMFold):
    quantized, _ = quantize(model, quick(name), [SEQUENCE], execution="simulate", cache=False)
    running, _ = to_integer(quantized, "reference", inplace=True)
    claim = integer_claim(load_recipe(name))
    assert claim.claimed is not bool(left_in_float(running)), left_in_float(running)[:3]
    assert claim.claimed is not bool(claim.reason)


def recipe(**sites: Any) -> Recipe:
    kinds = {"linear_weight": {"format": "uniform", "bits": 8}, "linear_input": {"format": "uniform", "bits": 8}}
    return Recipe.from_dict({"kinds": kinds, "sites": {site.replace("__", "."): form for site, form in sites.items()}})


def test_one_layer_without_a_kernel_is_enough_and_is_named():
    assert integer_claim(recipe()).claimed
    claim = integer_claim(recipe(trunk__blocks__0__tri_mul_in__left_gate__input={"format": "uniform", "bits": 9}))
    assert (claim.claimed, claim.reason) == (False, "trunk.blocks.0.tri_mul_in.left_gate.input has 9 bits")


def test_a_layer_in_float_altogether_does_not_count():
    path = "trunk__blocks__0__tri_mul_in__left_gate"
    assert integer_claim(recipe(**{f"{path}__input": None, f"{path}__weight": None})).claimed
    assert "weight is in float" in integer_claim(recipe(**{f"{path}__weight": None})).reason


def test_ranges_by_length_have_no_kernel():
    binned = Recipe.from_dict(recipe().to_dict() | {"calibration": {"lengths": "0-128,128-"}})
    assert "each bin of lengths" in integer_claim(binned).reason


def test_nothing_quantized_is_no_claim():
    assert integer_claim(load_recipe("fp32")).reason == "quantizes no linear layer"


def test_a_site_that_no_model_has_is_an_error():
    with pytest.raises(ProtquantError, match="matches no site"):
        integer_claim(recipe(nowhere={"format": "uniform"}))
