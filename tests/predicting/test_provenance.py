"""A prediction knows what made it, whichever way its model was quantized, stored and run."""

from pathlib import Path

import pytest

from protquant.checkpoints import load, save_quantized
from protquant.integer import to_integer
from protquant.models import ESMFold, Lineage
from protquant.predicting import fold
from protquant.preparing import quantize, quantize_checkpoint
from protquant.quant import load_recipe

SEQUENCES = ["GIVEQCCTSICSLYQ", "FVNQHLCGSHLV"]


@pytest.fixture(scope="module")
def int8(esmfold: ESMFold) -> ESMFold:
    return quantize(esmfold, "w8a8-int8", SEQUENCES, execution="simulate", cache=False)[0]


def test_a_float_model_is_told_by_its_name_and_fingerprint(esmfold: ESMFold, esmfold_checkpoint: Path):
    made = fold(esmfold, "MKTAYIAK").provenance
    assert made.model == esmfold_checkpoint.name  # no folder of the user's goes into a file that is passed on
    assert made.fingerprint == made.float_fingerprint == esmfold.fingerprint
    assert (made.recipe, made.execution, made.kernels, made.dtype) == ("fp32", "float", "torch", "float32")


def test_a_quantized_model_is_told_by_its_recipe_and_the_float_model_stays_float(esmfold: ESMFold, int8: ESMFold):
    made = fold(int8, "MKTAYIAK").provenance
    assert (made.recipe, made.execution, made.kernels) == ("w8a8-int8", "simulated", "torch")
    assert made.recipe_fingerprint == load_recipe("w8a8-int8").fingerprint()
    assert made.fingerprint == esmfold.fingerprint
    assert esmfold.lineage == Lineage(float_fingerprint=esmfold.fingerprint)


def test_recipes_of_one_name_are_told_apart(esmfold: ESMFold):
    changed = load_recipe(load_recipe("w8").to_dict() | {"exclude": ["lm.*", "*_head.*"]})
    one, other = (fold(quantize(esmfold, recipe, [])[0], "MKTAYIAK").provenance for recipe in ("w8", changed))
    assert one.recipe == other.recipe == "w8"
    assert one.recipe_fingerprint != other.recipe_fingerprint


def test_integers_are_told_with_their_kernels_and_what_is_simulated(int8: ESMFold):
    running, support = to_integer(int8, "reference")
    made = fold(running, "MKTAYIAK").provenance
    assert made.execution == "integer"
    assert made.kernels == support.kernels
    assert made.kernels.startswith(f"{support.backend.kernel}; {len(support.simulated)} of {len(support.rows)} parts")
    assert running.lm.lineage == running.lineage
    assert int8.lineage.execution == "simulated"


def test_a_quantized_checkpoint_tells_of_its_float_model_too(
    esmfold: ESMFold, esmfold_checkpoint: Path, tmp_path: Path
):
    quantize_checkpoint(str(esmfold_checkpoint), tmp_path / "w8", "w8")
    model = load(tmp_path / "w8")
    assert isinstance(model, ESMFold)
    made = fold(model, "MKTAYIAK").provenance
    assert (made.model, made.recipe, made.execution) == ("w8", "w8", "simulated")
    assert made.float_fingerprint == esmfold.fingerprint != made.fingerprint == model.fingerprint
    assert model.lm.lineage == model.lineage


def test_a_language_model_alone_is_known_by_the_folding_model_it_came_from(esmfold: ESMFold, tmp_path: Path):
    assert esmfold.lm.lineage.float_fingerprint == esmfold.fingerprint
    quantized, report = quantize(esmfold.lm, "w8", [])
    saved = load(save_quantized(quantized, report, tmp_path / "lm"))
    assert saved.lineage.float_fingerprint == esmfold.fingerprint
