"""Automatic precision: within its budget, written as an ordinary recipe, and measured."""

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from protquant.choosing.auto import AutoRecipe, auto
from protquant.choosing.sensitivity_plots import frontier_figure
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.preparing import quantize
from protquant.quant import Recipe, load_recipe, plan

SEQUENCES = ["GIVEQCCTSICS"]
CHECK = ["MKTAYIAKQRQISF", SEQUENCES[0]]
# Scales weigh heavily in layers this small.
SETTINGS = {"by": "module", "weight_bits": (2, 4, 8), "granularity": "channel", "sequences": SEQUENCES, "check": CHECK}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auto") / "mine.yaml"


@pytest.fixture(scope="module")
def found(esmfold: ESMFold, written: Path) -> AutoRecipe:
    table = written.with_name("table.csv")
    return auto(esmfold.lm, 5.5, **SETTINGS, frontier=(4.5, 7), compare=("w8",), output=written, table=table)


def test_the_budget_holds_with_scales_and_gains(esmfold: ESMFold, found: AutoRecipe):
    _, report = quantize(esmfold.lm, found.recipe, SEQUENCES)
    assert report.weight_bits == pytest.approx(found.row["weight_bits"])
    assert 5.0 < report.weight_bits <= 5.5
    for row in found.rows:
        if row["recipe"].startswith("auto "):
            assert row["weight_bits"] <= float(row["recipe"].split()[1])


def test_the_recipe_is_an_ordinary_one(esmfold: ESMFold, found: AutoRecipe, written: Path):
    loaded = load_recipe(written)
    assert loaded == found.recipe
    assert loaded.name == "mine"
    weights = [a for a in plan(esmfold.lm, loaded) if a.site.kind == "linear_weight" and not a.excluded]
    assert all(a.reason == "by name" for a in weights)
    assert {a.format.bits for a in weights} <= {2, 4, 8}
    assert len({a.format.bits for a in weights}) > 1
    gains = [a for a in plan(esmfold.lm, loaded) if a.site.kind == "norm_gain" and not a.excluded]
    assert all(a.format.bits == 8 for a in gains)


def test_one_width_and_other_recipes_are_on_the_frontier(found: AutoRecipe):
    kinds = [(row["recipe"], row["kind"]) for row in found.rows]
    assert {("w8", "recipe"), ("w2 per channel", "uniform"), ("w8 per channel", "uniform"), ("mine", "auto")} <= set(
        kinds
    )
    assert all((row["predicted"] is None) == (row["kind"] != "auto") for row in found.rows)
    assert found.drift == "contact_drift"
    assert found.chosen_by == ("contact_drift", "logit_kl")
    uniform, hand = (next(r for r in found.rows if r["recipe"] == name) for name in ("w8 per channel", "w8"))
    assert uniform["weight_bits"] == pytest.approx(hand["weight_bits"])


def test_what_the_choice_was_made_on_is_not_what_it_is_measured_on(esmfold: ESMFold, found: AutoRecipe):
    assert any("measured on 1 others" in note for note in found.notes)
    with pytest.raises(ProtquantError, match="no sequences to measure recipes on beside those"):
        auto(esmfold.lm, 5, **(SETTINGS | {"check": SEQUENCES}))


def test_the_frontier_is_drawn(found: AutoRecipe):
    figure = frontier_figure(found)
    FigureCanvasAgg(figure).draw()
    assert {"automatic", "one width, per channel", "recipes"} <= set(figure.axes[0].get_legend_handles_labels()[1])


def test_the_base_keeps_its_steps_and_its_activations(
    esmfold: ESMFold, found: AutoRecipe, written: Path, calibration_file: Path
):
    uniform = load_recipe("w8a8-uniform")
    base = Recipe(kinds=uniform.kinds, steps=[{"step": "smoothquant"}], exclude=uniform.exclude)
    table = written.with_name("table.csv")  # the same weights: nothing is measured again
    chosen = auto(esmfold.lm, 5.5, **SETTINGS, base=base, frontier=(), table=table, calibration=calibration_file)
    assert chosen.recipe.steps == base.steps
    assert chosen.recipe.kinds == base.kinds
    assert chosen.recipe.sites == found.recipe.sites
    assert chosen.row["activation_bits"] == 8


def test_activations_get_widths_by_a_budget_of_their_own(esmfold: ESMFold, calibration_file: Path):
    chosen = auto(
        esmfold.lm,
        8,
        **SETTINGS,
        base="w8a8-uniform",
        activation_bits=(4, 6, 8),
        target_activation_bits=6,
        frontier=(),
        calibration=calibration_file,
    )
    assert 5 < chosen.row["activation_bits"] <= 6
    inputs = [form for site, form in chosen.recipe.sites.items() if site.endswith(".input")]
    assert {form.bits for form in inputs} <= {4, 6, 8}
    assert all(form.full_range for form in inputs)


def test_the_largest_drift_is_held_as_measured(esmfold: ESMFold, written: Path):
    settings = SETTINGS | {"frontier": (), "table": written.with_name("table.csv")}
    wide = auto(esmfold.lm, 8.9, **settings)
    narrow = next(row for row in wide.rows if row["recipe"] == "w4 per channel")
    chosen = auto(esmfold.lm, max_drift=narrow["contact_drift"], **settings)
    assert chosen.row["contact_drift"] <= narrow["contact_drift"]
    assert chosen.row["weight_bits"] <= narrow["weight_bits"] + 0.5
    with pytest.raises(ProtquantError, match="no choice of these formats keeps contact_drift within 1e-12"):
        auto(esmfold.lm, max_drift=1e-12, **settings)


def test_a_folding_model_is_chosen_for_by_what_moves_at_all(esmfold: ESMFold):
    settings = SETTINGS | {"by": "block", "weight_bits": (3, 8)}
    chosen = auto(esmfold, 7, **settings, frontier=(), num_recycles=0)
    assert chosen.drift == "lddt_drift"
    assert chosen.chosen_by == ("tm_drift", "distogram_kl")
    assert chosen.row["weight_bits"] <= 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of the two"),
        ({"target_bits": 5, "max_drift": 0.1}, "one of the two"),
        ({"target_bits": 1.5}, r"a mean of 1.5 bits cannot be reached: the smallest of these formats take \d"),
        ({"target_bits": float("nan")}, "a mean of nan bits cannot be reached"),
        ({"target_bits": 5, "weight_bits": ()}, "no widths of weights"),
        ({"target_bits": 5, "activation_bits": (8,)}, "give both or none"),
        ({"target_bits": 5, "drift": "tm_drift"}, "this model has no drift 'tm_drift'"),
        ({"target_bits": 5, "base": "fp32"}, "fp32 leaves all weights of linear layers in float"),
        ({"max_drift": 0}, "a largest drift of 0 leaves nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    esmfold: ESMFold, settings, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("protquant.quant.sensitivity.Replay", None)
    with pytest.raises(ProtquantError, match=message):
        auto(esmfold.lm, **(SETTINGS | settings))
