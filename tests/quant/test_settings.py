"""Settings are checked alike whoever makes them, names are registered once, and editors are told the same."""

import json
from dataclasses import dataclass

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from protquant.errors import ProtquantError
from protquant.files.plain_data import parse_yaml
from protquant.quant import FORMATS, Calibration, Recipe, Uniform, available_recipes, load_recipe, recipe_schema
from protquant.quant.shipped_recipes import recipe_text
from protquant.quant.steps import GPTQ, STEPS, LinkTransform, SmoothQuant, Step, register_step, step_from_config
from protquant.quant.storable import STORABLE, Storable
from protquant.sites import KINDS

FORM = st.builds(
    Uniform, st.integers(2, 16), symmetric=st.booleans(), granularity=st.sampled_from(["tensor", "channel", "token"])
) | st.sampled_from([variant for cls in FORMATS.values() for variant in cls.variants()])
LAYERS = st.lists(st.sampled_from(["*", "lm.*"])).map(tuple)
DAMPING = st.floats(0.001, 2) | st.integers(1, 9)
STEP = st.builds(SmoothQuant, alpha=st.floats(0, 1), layers=LAYERS) | st.builds(GPTQ, damping=DAMPING)
RECIPES = st.builds(
    Recipe,
    name=st.text("abc:#- '8", max_size=8),
    description=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20),
    calibration=st.builds(Calibration, top_k=st.integers(1, 9), percentile=st.floats(51, 100)),
    kinds=st.dictionaries(st.sampled_from(KINDS), st.none() | FORM),
    sites=st.dictionaries(st.sampled_from(["a.*", "re:b[0-9]", "c.d"]), st.none() | FORM),
    exclude=st.lists(st.sampled_from(["*_head.*", "lm.*"])),
    steps=st.lists(STEP, max_size=3),
    propagate=st.sampled_from(["float", "quantized"]),
)


@settings(deadline=None, max_examples=max(20, settings.default.max_examples // 5))
@given(RECIPES)
def test_a_recipe_comes_back_from_yaml(recipe: Recipe):
    read = Recipe.from_dict(parse_yaml(yaml.safe_dump(recipe.to_dict(), sort_keys=False)))
    assert read == recipe
    assert read.fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize("name", available_recipes())
def test_a_shipped_recipe_is_written_as_its_file_says(name: str):
    given, written = parse_yaml(recipe_text(name)), load_recipe(name).to_dict()
    assert {key: written[key] for key in given if key != "calibration"} == {
        key: value for key, value in given.items() if key != "calibration"
    }


def test_python_and_files_get_the_same_message():
    with pytest.raises(ProtquantError) as by_python:
        SmoothQuant(alpha=1.5)
    with pytest.raises(ProtquantError) as by_file:
        step_from_config({"step": "smoothquant", "alpha": 1.5})
    assert str(by_python.value) == str(by_file.value) == "step 'smoothquant': alpha 1.5 is not in [0, 1]"


def test_a_message_has_the_path():
    with pytest.raises(ProtquantError) as caught:
        Recipe.from_dict({"name": "r", "sites": {"lm.*": {"format": "uniform", "bit": 8}}})
    assert str(caught.value) == "recipe r: sites.lm.*: format 'uniform' has no setting 'bit'; did you mean bits?"


def test_a_name_has_one_class(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Step, "registry", dict(STEPS))
    with pytest.raises(ProtquantError, match=r"'smoothquant' is registered twice.*SmoothQuant.*Mine.*test_settings"):

        @register_step("smoothquant")
        @dataclass(frozen=True, kw_only=True)
        class Mine(LinkTransform):
            def apply(self, link, evidence, assignments): ...


def test_the_same_definition_may_run_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Step, "registry", dict(STEPS))

    def define() -> type[Step]:
        @register_step("again")
        @dataclass(frozen=True, kw_only=True)
        class Again(LinkTransform):
            def apply(self, link, evidence, assignments): ...

        return Again

    define()
    assert define() is Step.registry["again"]


def test_a_stored_class_has_its_name_alone():
    known = next(name for name, cls in STORABLE.items() if cls.__module__.startswith("protquant."))
    with pytest.raises(ProtquantError, match=rf"{known!r} is registered twice"):
        type(known, (Storable,), {"__module__": "protquant.elsewhere"})


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(json.dumps(recipe_schema()))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", available_recipes())
def test_the_schema_takes_what_ships(validator: Draft202012Validator, name: str):
    validator.validate(parse_yaml(recipe_text(name)))


@pytest.mark.parametrize(
    "data",
    [
        {"kind": {}},
        {"kinds": {"linear_weigth": None}},
        {"kinds": {"linear_weight": {"format": "uniform", "bits": 1}}},
        {"sites": {"a": {"format": "unifrom"}}},
        {"steps": [{"step": "gptq", "dampling": 1}]},
        {"calibration": {"range": "max"}},
    ],
)
def test_the_schema_refuses_what_a_recipe_cannot_be(validator: Draft202012Validator, data: dict[str, object]):
    assert not validator.is_valid(data)
    with pytest.raises(ProtquantError):
        Recipe.from_dict(data)
