"""QLLM's error correction: the loss falls, what was stopped goes on to the same weights, and they are merged."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Output, ESMFold
from protquant.preparing.quantize import quantize as quantize_on_sequences
from protquant.quant import Examples, Recipe, plan, quantize
from protquant.quant.layer_error import relative_error
from protquant.quant.steps.low_rank_correction import LowRankCorrection
from protquant.quant.tuning import Learner
from protquant.quant.tuning.low_rank import LowRankStudent

CHANNEL = {"format": "uniform", "bits": 4, "granularity": "channel", "symmetric": False}
TOKEN = {**CHANNEL, "granularity": "token"}
KINDS = {"linear_weight": CHANNEL, "norm_gain": {"format": "uniform", "bits": 8}, "linear_input": TOKEN}
KINDS |= {"matmul_operand": TOKEN}
STEP = {"step": "low_rank_correction", "epochs": 6, "rate": 0.01}


def run(model: ESM2, tokens: Tensor) -> ESM2Output:
    return model(tokens)


def recipe(**settings: object) -> Recipe:
    return Recipe(kinds=KINDS, steps=[{**STEP, **settings}])


def tuned(encoder: ESM2, tokens: list[Tensor], checkpoint: Path | None = None, **settings: object) -> ESM2:
    """The float model, with what was learned in its weights."""
    model = copy.deepcopy(encoder)
    examples = Examples(tuple(tokens), run, objective=ESM2.objective, checkpoint=checkpoint)
    step = recipe(**settings).steps[0]
    assert isinstance(step, LowRankCorrection)
    step.tune(model, plan(model, recipe()), examples)
    return model


def drift(encoder: ESM2, tokens: list[Tensor], recipe: Recipe) -> float:
    examples = Examples(tuple(tokens), run, objective=ESM2.objective)
    quantized, _ = quantize(encoder, recipe, examples=examples)
    with torch.no_grad():
        return sum(relative_error(quantized(t).last_hidden[0], encoder(t).last_hidden[0]) for t in tokens)


@pytest.mark.parametrize(
    "settings",
    [{}, {"blocks": 1}, {"merged": False}, {"vectors": True}, {"loss": "hidden"}],
    ids=["paper", "one block", "unmerged", "vectors", "whole"],
)
def test_the_corrected_model_answers_more_like_the_float_one(encoder, tokens, settings, caplog):
    plain = drift(encoder, tokens, Recipe(kinds=KINDS))
    with caplog.at_level(logging.INFO):
        assert drift(encoder, tokens, recipe(**settings)) < plain
    losses = [record.args for record in caplog.records if "mean loss" in record.message]
    assert losses
    for _, first, last in losses:
        assert last < first


def test_what_is_added_to_a_weight_has_the_rank_that_was_asked_for(encoder, tokens):
    model = tuned(encoder, tokens, rank=2)
    for name, layer in encoder.layers.named_modules():
        if isinstance(layer, nn.Linear):
            added = (model.layers.get_submodule(name).weight - layer.weight).detach()
            assert 0 < torch.linalg.matrix_rank(added, rtol=1e-3) <= 2
            assert torch.equal(model.layers.get_submodule(name).bias, layer.bias)
    assert torch.equal(model.lm_head.dense.weight, encoder.lm_head.dense.weight)
    assert torch.equal(model.embedding.weight, encoder.embedding.weight)


def test_a_student_that_has_learned_nothing_is_the_quantized_model(encoder, tokens):
    assignments = plan(encoder, recipe())
    quantizers = {a.site.name: a.format.for_activation(None, None) for a in assignments if a.is_activation and a.format}
    student = copy.deepcopy(encoder)
    LowRankStudent(
        {"": student}, assignments, quantizers, rank=4, scaling=1.0, vectors=False, generator=torch.Generator()
    )
    quantized, _ = quantize(encoder, Recipe(kinds=KINDS))
    with torch.no_grad():
        assert torch.equal(student(tokens[0]).last_hidden, quantized(tokens[0]).last_hidden)


@pytest.mark.parametrize("settings", [{"blocks": 1, "vectors": True}, {"loss": "hidden"}], ids=["blocks", "whole"])
def test_a_stopped_training_goes_on_to_the_same_weights(encoder, tokens, settings, tmp_path, monkeypatch):
    whole = tuned(encoder, tokens, tmp_path / "whole.safetensors", **settings)
    checkpoint = tmp_path / "stopped.safetensors"
    taken, step = 0, Learner.step
    # After the second epoch of the second block, in the middle of an epoch.
    last = (6 + 2) * len(tokens) + 1 if "blocks" in settings else 3 * len(tokens) + 1

    def stop(self: Learner, loss: Tensor) -> None:
        nonlocal taken
        taken += 1
        if taken > last:
            raise KeyboardInterrupt
        step(self, loss)

    monkeypatch.setattr(Learner, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        tuned(encoder, tokens, checkpoint, **settings)
    taken = -(10**6)
    resumed = tuned(encoder, tokens, checkpoint, **settings)
    steps = 6 * len(tokens) * (2 if "blocks" in settings else 1)
    assert taken + 10**6 == steps - last + 1  # the one step since the last whole epoch again
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_checkpoint_of_other_settings_is_refused(encoder, tokens, tmp_path):
    tuned(encoder, tokens, tmp_path / "state.safetensors", epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["state.layers.0-1.safetensors"]
    with pytest.raises(ProtquantError, match=r"state\.layers\.0-1\.safetensors.*other settings"):
        tuned(encoder, tokens, tmp_path / "state.safetensors", epochs=2)


def test_static_ranges_and_transformed_layers_take_part(encoder, tokens):
    static = {"format": "uniform", "bits": 6, "granularity": "tensor"}
    kinds = {**KINDS, "linear_input": static, "matmul_operand": static}
    steps = [{"step": "flattenquant"}, {**STEP, "epochs": 4}]
    flattened = drift(encoder, tokens, Recipe(kinds=kinds, steps=steps[:1]))
    assert drift(encoder, tokens, Recipe(kinds=kinds, steps=steps)) < flattened


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["block", "structure"])
def test_a_folding_model_is_corrected(esmfold: ESMFold, loss: str, caplog):
    step = {**STEP, "loss": loss}
    with caplog.at_level(logging.INFO):
        quantize_on_sequences(esmfold, Recipe(kinds=KINDS, steps=[step]), ["GIVEQCCTSICSLYQ", "MKTAYIAKQR"])
    names = [record.args[0] for record in caplog.records if "mean loss" in record.message]
    assert names == (["lm.layers.0-1", "trunk.blocks.0-1"] if loss == "block" else ["model"])
    for _, first, last in (record.args for record in caplog.records if "mean loss" in record.message):
        assert last < first


@pytest.mark.parametrize("settings", [{"loss": "l1"}, {"rank": 0}, {"rank": 1.5}, {"epochs": -1}])
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, object]):
    with pytest.raises(ProtquantError, match="low_rank_correction"):
        LowRankCorrection(**settings)


def test_an_objective_is_asked_for_where_it_is_needed(encoder, tokens):
    step = LowRankCorrection(loss="hidden")
    with pytest.raises(ProtquantError, match="objective"):
        step.tune(copy.deepcopy(encoder), plan(encoder, recipe()), Examples(tuple(tokens), run))
