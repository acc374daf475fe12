"""Steps are taken in order, on the layers they are for, and reports count what they add."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.models import ESM2
from protquant.quant import Examples, QuantizedLinear, Recipe, load_recipe, quantize
from protquant.quant.steps import STEPS, Correction, LinkTransform, Rounding, Step, Tuning, WeightFit, register_step
from protquant.quant.transforms import InputTransform

W4 = {"linear_weight": {"format": "uniform", "bits": 4, "granularity": "channel"}}


@pytest.fixture
def examples(tokens) -> Examples:
    return Examples(tuple(tokens), lambda model, x: model(x))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps that do nothing but write down that they were called."""
    monkeypatch.setattr(Step, "registry", dict(STEPS))
    calls: list[str] = []

    @register_step("noted_transform")
    @dataclass(frozen=True, kw_only=True)
    class NotedTransform(LinkTransform):
        def apply(self, link, evidence, assignments):  # noqa: ARG002
            calls.append(f"transform {link.name}")

    @register_step("noted_tuning")
    @dataclass(frozen=True)
    class NotedTuning(Tuning):
        def tune(self, model, assignments, examples):  # noqa: ARG002
            calls.append("tune")

    @register_step("noted_fit")
    @dataclass(frozen=True, kw_only=True)
    class NotedFit(WeightFit):
        def fit(self, weight, form, evidence):  # noqa: ARG002
            calls.append("fit")
            return form.for_weight(weight)

    @register_step("zeros")
    @dataclass(frozen=True, kw_only=True)
    class Zeros(Rounding):
        def round(self, weight, quantizer, evidence):  # noqa: ARG002
            calls.append("round")
            return quantizer.encode(torch.zeros_like(weight))

    @register_step("noted_correction")
    @dataclass(frozen=True, kw_only=True)
    class NotedCorrection(Correction):
        def correct(self, layer, weight, evidence):  # noqa: ARG002
            assert isinstance(layer, QuantizedLinear)
            calls.append("correct")

    return calls


def test_kinds_of_steps_are_taken_in_their_order_and_on_their_layers(encoder: ESM2, examples: Examples, taken):
    layers = ["layers.1.ffn.*"]
    names = ("noted_correction", "zeros", "noted_fit", "noted_tuning", "noted_transform")
    steps = [{"step": name} if name == "noted_tuning" else {"step": name, "layers": layers} for name in names]
    model, report = quantize(encoder, Recipe(kinds=W4, steps=steps), examples=examples)
    per_layer = ["fit", "round", "fit", "round", "correct", "correct"]
    transforms = ["transform layers.1.ffn.up_proj", "transform layers.1.ffn.down_proj"]
    assert sorted(taken[:2]) == sorted(transforms)
    assert taken[2:] == ["tune", *per_layer]
    assert not model.layers[1].ffn.up_proj.weight.any()
    assert model.layers[0].ffn.up_proj.weight.any()
    frame = report.to_frame().set_index("site")
    assert frame.loc["layers.1.ffn.up_proj.weight", "snr_db"] == 0
    assert frame.loc["layers.0.ffn.up_proj.weight", "snr_db"] > 10


def test_layers_that_the_recipe_leaves_in_float_are_left_alone(encoder: ESM2, examples: Examples, taken):
    recipe = Recipe(sites={"layers.0.ffn.up_proj.weight": W4["linear_weight"]}, steps=[{"step": "noted_transform"}])
    quantize(encoder, recipe, examples=examples)
    assert taken == ["transform layers.0.ffn.up_proj"]


def test_a_step_that_finds_nothing_to_do_is_an_error(encoder: ESM2, examples: Examples):
    recipe = Recipe(name="mine", kinds=W4, steps=[{"step": "smoothquant", "layers": ["decoder.*"]}])
    with pytest.raises(ProtquantError, match=r"recipe mine: step smoothquant finds no layer"):
        quantize(encoder, recipe, examples=examples)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"step": "smothquant"}], "did you mean smoothquant"),
        ([{"step": "smoothquant", "alhpa": 1}], "did you mean alpha"),
        ([{"step": "smoothquant", "alpha": 2}], "not in"),
        ([{"step": "smoothquant", "layers": ["re:("]}], "no regular expression"),
        (["smoothquant"], "mapping with the key 'step'"),
    ],
)
def test_a_wrong_step_is_named(steps: list[object], message: str):
    with pytest.raises(ProtquantError, match=message):
        Recipe.from_dict({"name": "mine", "kinds": W4, "steps": steps})


def test_steps_that_look_at_what_passes_need_sequences(encoder: ESM2):
    recipe = Recipe(kinds=W4, steps=[{"step": "smoothquant"}])
    with pytest.raises(ProtquantError, match="needs sequences"):
        quantize(encoder, recipe)


def test_what_a_transform_adds_is_counted(encoder: ESM2, examples: Examples, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Step, "registry", dict(STEPS))

    class Twice(InputTransform):
        def forward(self, x):
            return torch.cat((x, x), dim=-1) / 2

        def columns(self, weight):
            return torch.cat((weight, weight), dim=-1)

    @register_step("twice")
    @dataclass(frozen=True, kw_only=True)
    class AllTwice(LinkTransform):
        def apply(self, link, evidence, assignments):  # noqa: ARG002
            link.prepend(Twice())

    layers = {"layers.0.ffn.up_proj.weight": W4["linear_weight"]}
    plain = quantize(encoder, Recipe(sites=layers))[1]
    model, doubled = quantize(encoder, Recipe(sites=layers, steps=[{"step": "twice"}]), examples=examples)
    assert model.layers[0].ffn.up_proj.weight.shape == (64, 64)
    site, twice = ({s.site: s for s in r.sites}["layers.0.ffn.up_proj.weight"] for r in (plain, doubled))
    assert site.elements == twice.elements == 32 * 64
    assert twice.effective_bits == pytest.approx(site.effective_bits + 4)
    assert doubled.weight_bytes - plain.weight_bytes == 32 * 64 * 4 // 8


def test_statistics_of_the_given_model_are_not_used_where_a_step_changed_it(
    encoder: ESM2, statistics, examples: Examples
):
    recipe = load_recipe("w8a8-uniform").to_dict() | {"steps": [{"step": "smoothquant"}]}
    given = quantize(encoder, Recipe.from_dict(recipe), statistics, examples=examples)[0]
    own = quantize(encoder, Recipe.from_dict(recipe), examples=examples)[0]
    x = examples.sequences[0]
    assert torch.equal(given(x).last_hidden, own(x).last_hidden)


def test_inplace_changes_the_model_itself(encoder: ESM2):
    model = copy.deepcopy(encoder)
    assert quantize(model, "w4", inplace=True)[0] is model
    assert isinstance(model.layers[0].ffn.up_proj, QuantizedLinear)
    assert isinstance(encoder.layers[0].ffn.up_proj, nn.Linear)


def test_a_step_that_changes_nothing_says_so(encoder: ESM2, examples: Examples, caplog: pytest.LogCaptureFixture):
    # A rotation takes the gains of norms away, and with them what SmoothQuant folds its scales into.
    steps = [{"step": "rotation"}, {"step": "smoothquant"}]
    with caplog.at_level("WARNING"):
        quantize(encoder, Recipe(name="both", kinds=W4, steps=steps), examples=examples)
    assert "recipe both: step smoothquant changed none of the" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        quantize(encoder, Recipe(kinds=W4, steps=steps[1:]), examples=examples)
    assert "changed none" not in caplog.text


@pytest.mark.parametrize("step", ["mobilequant", "bias_correction"])
def test_a_range_for_each_length_and_a_step_with_one_for_all_do_not_go_together(
    encoder: ESM2, examples: Examples, step: str
):
    kinds = {**W4, "linear_input": {"format": "uniform", "bits": 8}}
    calibration = {"range": "minmax", "lengths": "0-30,30-"}
    recipe = Recipe.from_dict({"name": "r", "kinds": kinds, "calibration": calibration, "steps": [{"step": step}]})
    with pytest.raises(ProtquantError, match=rf"calibration.lengths asks for .* and step {step} counts on one"):
        quantize(encoder, recipe, examples=examples)
