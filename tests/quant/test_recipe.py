import pytest
from omegaconf import OmegaConf

from protquant.configs.schema import RecipeConfig
from protquant.errors import ProtquantError
from protquant.quant import Calibration, Recipe, Uniform, available_recipes, load_recipe
from protquant.sites import KINDS, Site

EIGHT, FOUR = {"format": "uniform", "bits": 8}, {"format": "uniform", "bits": 4}
SITES = [
    Site("layers.0.fc.weight", "linear_weight", "layers.0.fc"),
    Site("layers.0.fc.input", "linear_input", "layers.0.fc"),
    Site("layers.1.fc.weight", "linear_weight", "layers.1.fc"),
    Site("lm_head.dense.weight", "linear_weight", "lm_head.dense"),
]


def bits(recipe: Recipe) -> list[int | None]:
    return [a.format.code_bits if a.format else None for a in recipe.assign(SITES)]


def test_a_name_goes_before_a_pattern_and_a_pattern_before_a_kind():
    sites = {"layers.0.*": FOUR, "layers.0.fc.weight": {"format": "bfloat16"}}
    assert bits(Recipe(kinds={"linear_weight": EIGHT}, sites=sites)) == [16, 4, 8, None]


def test_of_several_patterns_the_last_decides():
    assert bits(Recipe(sites={"layers.*": EIGHT, "*.weight": FOUR})) == [4, 8, 4, 4]
    assert bits(Recipe(sites={"*.weight": FOUR, "layers.*": EIGHT})) == [8, 8, 8, 4]


def test_null_leaves_a_site_in_float():
    assert bits(Recipe(kinds={"linear_weight": EIGHT}, sites={"layers.0.*": None})) == [None, None, 8, None]


def test_a_regular_expression_matches_the_whole_name():
    assert bits(Recipe(sites={r"re:layers\.\d\.fc\.weight": FOUR})) == [4, None, 4, None]
    with pytest.raises(ProtquantError, match="matches no site"):
        bits(Recipe(sites={r"re:layers": FOUR}))


def test_heads_stay_in_float_unless_they_are_named():
    by_kind = Recipe(kinds={"linear_weight": EIGHT})
    assert by_kind.assign(SITES)[3].reason == "excluded by *_head.*"
    assert by_kind.assign(SITES)[3].excluded
    assert bits(Recipe(kinds={"linear_weight": EIGHT}, sites={"lm_head.*": FOUR}))[3] == 4
    assert bits(Recipe(kinds={"linear_weight": EIGHT}, exclude=[]))[3] == 8


def test_every_site_says_why():
    reasons = [a.reason for a in Recipe(kinds={"linear_weight": EIGHT}, sites={"layers.1.*": None}).assign(SITES)]
    assert reasons == ["by kind", "kind not in recipe", "by pattern layers.1.*", "excluded by *_head.*"]


def test_a_recipe_survives_the_way_through_plain_data():
    recipe = load_recipe("w8a8-pwlq")
    assert load_recipe(recipe.to_dict()) == recipe
    assert load_recipe(OmegaConf.create(recipe.to_dict())) == recipe
    assert load_recipe(recipe) is recipe


def test_a_recipe_is_a_structured_config():
    config = OmegaConf.merge(
        OmegaConf.structured(RecipeConfig), {"kinds": {"norm_input": EIGHT}, "calibration": {"top_k": 5}}
    )
    recipe = load_recipe(config)
    assert recipe.calibration == Calibration(top_k=5)
    assert recipe.kinds == {"norm_input": Uniform(8)}


def test_a_recipe_simulates_unless_it_says_otherwise():
    assert Recipe().execution == load_recipe("w8a8-uniform").execution == "simulate"
    recipe = load_recipe("w8a8-int8")
    assert recipe.execution == "integer"
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_file_is_a_recipe_named_after_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("kinds:\n  linear_weight: {format: uniform, bits: 4}\n")
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert bits(recipe) == [4, None, 4, None]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": {}}, "did you mean kinds"),
        ({"kinds": {"norm_inputs": EIGHT}}, "did you mean norm_input"),
        ({"kinds": {"norm_input": {"format": "unifrom"}}}, "kinds.norm_input.*did you mean uniform"),
        ({"kinds": {"norm_input": {**EIGHT, "symetric": True}}}, "did you mean symmetric"),
        ({"sites": {"a.b": {"format": "uniform", "bits": 99}}}, "sites.a.b.*bits 99"),
        ({"sites": {"re:(": None}}, "regular expression"),
        ({"calibration": {"topk": 3}}, "did you mean top_k"),
        ({"calibration": {"range": "max"}}, "minmax"),
        ({"calibration": {"top_k": "2"}}, "top_k '2' is not a positive integer"),
        ({"calibration": "minmax"}, "calibration is a mapping"),
        ({"kinds": ["norm_input"]}, "mapping"),
        ({"kinds": {"linear_weight": {**EIGHT, "granularity": "group", "group_size": "32"}}}, "group_size '32'"),
        ({"exclude": "lm.*"}, "exclude is a list of patterns"),
        ({"execution": "integers"}, "execution 'integers' is none of simulate, integer; did you mean integer"),
    ],
)
def test_mistakes_are_named(data, message):
    with pytest.raises(ProtquantError, match=message):
        load_recipe(data)


def test_a_pattern_that_matches_nothing_suggests_what_is_there():
    with pytest.raises(ProtquantError, match=r"did you mean layers\.0\.fc\.weight"):
        bits(Recipe(sites={"layer.0.fc.weight": EIGHT}))


@pytest.mark.parametrize("text", ["kinds: [", "- a\n- b\n", "kinds: ${nowhere}\n"])
def test_a_file_that_is_no_recipe_is_named(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ProtquantError, match=r"broken\.yaml"):
        load_recipe(path)


def test_an_unknown_name_suggests_a_known_one():
    with pytest.raises(ProtquantError, match="did you mean w8a8-pwlq"):
        load_recipe("w8a8-pwql")
    with pytest.raises(ProtquantError, match="does not exist"):
        load_recipe("nowhere.yaml")


def test_the_recipes_of_the_paper_and_of_its_comparisons_ship():
    names = "bf16 fp32 w4 w4a8-pwlq w6a6-pwlq w8 w8a8-pwlq w8a8-uniform w8a8-uniform-noln"
    assert set(names.split()) <= set(available_recipes())


@pytest.mark.parametrize("name", available_recipes())
def test_a_shipped_recipe_bears_its_name_and_knows_every_kind_it_should(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    if recipe.execution == "integer":
        assert set(recipe.kinds) >= {"linear_weight", "linear_input", "matmul_operand"}
    elif "a8" in name or "a6" in name or name == "bf16":
        assert set(recipe.kinds) == set(KINDS) - {"residual"}


def test_the_uniform_baselines_differ_by_the_inputs_of_layer_norm_alone():
    uniform, noln = load_recipe("w8a8-uniform"), load_recipe("w8a8-uniform-noln")
    assert uniform.calibration == noln.calibration
    assert {kind for kind in KINDS if uniform.kinds.get(kind) != noln.kinds.get(kind)} == {"norm_input"}
    assert uniform.kinds["norm_input"] == Uniform(8, full_range=True)
