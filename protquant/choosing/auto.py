"""The recipe of `protquant auto`: a format for every weight, chosen by bits and drift."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from protquant.choosing.format_choice import FormatChoice
from protquant.choosing.sensitivity import (
    Sensitivity,
    measured_sequences,
    open_model,
    sensitivity,
    weight_formats,
)
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.files import atomic_write, fingerprint
from protquant.files.run_store import RunStore
from protquant.measuring.drift import DriftTask, check_drift, drift_measure
from protquant.measuring.grid import Job, ScoredModel, run_grid
from protquant.models import ProteinModel
from protquant.options import AutoOptions, takes
from protquant.preparing.quantize import calibration_sequences
from protquant.quant import Format, Recipe, load_recipe, model_hash
from protquant.running.execution import Execution
from protquant.structures import load_references

__all__ = ["AutoRecipe", "auto", "save_recipe"]

_ROUNDS = 9
_NOTHING, _NOTICEABLE = 1e-300, 1e8
_NUM_CHECKED = 8


@dataclass
class AutoRecipe:
    """The results of `auto`.

    Attributes
    ----------
    recipe : Recipe
        The chosen formats, by name of site.
    rows : list of dict
        The measured frontier: `recipe`, `kind` (auto, uniform, recipe), `weight_bits`, `activation_bits`, `predicted`
        (the predicted drift, the first of `chosen_by`) and the drifts on sequences that the choice did not use.
    drift : str
        The column of `rows` to compare recipes by.
    chosen_by : tuple of str
        The drifts of single parts that the choice minimizes.
    sensitivity : Sensitivity
        The sensitivities that the choice uses.
    """

    recipe: Recipe
    rows: list[dict[str, Any]]
    drift: str
    chosen_by: tuple[str, ...]
    sensitivity: Sensitivity
    notes: list[str]

    @property
    def row(self) -> dict[str, Any]:
        """The row of the chosen recipe."""
        return next(row for row in self.rows if row["recipe"] == self.recipe.name)

    def to_frame(self) -> pd.DataFrame:
        """Return the frontier as a table."""
        return pd.DataFrame(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a JSON document."""
        return {"recipe": self.recipe.to_dict(), "frontier": self.rows, "drift": self.drift, "notes": self.notes}

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, float_format=lambda value: f"{value:.4g}")


@takes(AutoOptions)
def auto(options: AutoOptions) -> AutoRecipe:
    """Choose a format for every weight: least drift at `target_bits`, or fewest bits within `max_drift`.

    The drift of each part alone is measured (`sensitivity`). Drifts are assumed to add up, so that the choice is a
    knapsack problem (`protquant.quant.allocation`). The chosen recipe is then measured on other sequences.

    Raises
    ------
    ProtquantError
        If an argument cannot be used, or the target cannot be reached with these formats.
    """
    if (options.target_bits is None) == (options.max_drift is None):
        raise ProtquantError("give a target of mean bits, or a largest drift: one of the two")
    if (options.target_activation_bits is None) != (not options.activation_bits):
        raise ProtquantError("widths for activations and a target for their mean bits go together: give both or none")
    if options.max_drift is not None and not options.max_drift > 0:
        raise ProtquantError(f"a largest drift of {options.max_drift} leaves nothing to choose; give more than 0")
    if not options.weight_bits:
        raise ProtquantError("there are no widths of weights to choose from")
    network = open_model(options.model, options.dtype, options.cpu_only)
    recipe = load_recipe(options.base)
    measure = drift_measure(network, options.num_recycles)
    column = check_drift(measure, options.drift)
    chosen_by = measure.smooth if options.drift is None else (column,)
    seen, where = measured_sequences(network, options.sequences, options.limit)
    checked = _checked_sequences(options.check, options.check_limit, seen)
    compared = [load_recipe(other) for other in options.compare]
    forms = weight_formats(options.weight_bits, options.granularity, options.group_size)
    choice = FormatChoice(network, recipe, options.by, chosen_by, forms)
    if options.target_bits is not None:
        choice.check_target(options.target_bits)
    found = sensitivity(
        network,
        base=recipe,
        by=options.by,
        weight_bits=options.weight_bits,
        activation_bits=options.activation_bits,
        granularity=options.granularity,
        group_size=options.group_size,
        sequences=seen,
        num_recycles=options.choose_recycles if "structure" in network.tasks else None,
        calibration=options.calibration,
        output=options.table,
    )
    choice.learn(found, options.target_activation_bits)
    judge = _Judge(network, DriftTask(measure, checked), calibration_sequences(options.calibration))
    name = "auto" if options.output is None else options.output.stem
    rows: list[dict[str, Any]] = []
    if options.target_bits is not None:
        chosen, predicted = choice.within_bits(options.target_bits)
        wanted = f"Least {' and '.join(chosen_by)} at {options.target_bits:g} effective bits per weight"
        chosen = replace(chosen, name=name, description=wanted)
    else:
        assert options.max_drift is not None
        chosen, predicted = _within_drift(choice, judge, column, options.max_drift)
        chosen = replace(chosen, name=name, description=f"Fewest bits within a {column} of {options.max_drift:g}")
    rows.append(judge(chosen, "auto", predicted))
    for bits in options.frontier:
        if bits == options.target_bits or not choice.least_bits <= bits <= choice.most_bits:
            continue
        other, predicted = choice.within_bits(bits)
        rows.append(judge(replace(other, name=f"auto {bits:g}"), "auto", predicted))
    for format_ in forms:
        other = choice.recipe_of({group.name: format_ for group in choice.groups if group.is_weight})
        rows.append(judge(replace(other, name=_short(format_)), "uniform", None))
    rows += [judge(other, "recipe", None) for other in compared]
    rows.sort(key=lambda row: (row["kind"], row["weight_bits"]))
    if options.output is not None:
        save_recipe(chosen, options.output)
    notes = [
        (
            f"Chosen by {' and '.join(chosen_by)} of each part alone on {len(seen)} sequences, {where}; "
            f"measured on {len(checked)} others."
        ),
        f"Predicted is {chosen_by[0]}, as if the drifts of parts added up.",
        found.notes[1],
    ]
    if "structure" in network.tasks:
        notes += notes_on_targets(network, [*seen, *checked], shipped=False)
    return AutoRecipe(chosen, rows, column, chosen_by, found, notes)


def save_recipe(recipe: Recipe, path: Path) -> Path:
    """Write a recipe as YAML for `load_recipe`."""
    document = {key: value for key, value in recipe.to_dict().items() if value or key == "exclude"}
    document["calibration"] = asdict(recipe.calibration)
    text: str = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)
    return atomic_write(path, text)


def _short(format_: Format) -> str:
    size = getattr(format_, "group_size", None)
    return f"w{getattr(format_, 'bits', '')} per {'channel' if size is None else f'group {size}'}"


def _checked_sequences(check: Path | Sequence[str] | None, limit: int, seen: Sequence[str]) -> list[str]:
    given: Iterable[str]
    if check is None:
        given = (reference.sequence for reference in load_references() if ":" not in reference.sequence)
    elif isinstance(check, str | Path):
        given = calibration_sequences(check)
    else:
        given = check
    checked = [sequence for sequence in given if sequence not in frozenset(seen)][:limit]
    if not checked:
        raise ProtquantError(
            "there are no sequences to measure recipes on beside those that the choice is made by; "
            "name others for either"
        )
    return checked


class _Judge:
    """Measures recipes against the float model; recipes that differ only in their names are measured once."""

    def __init__(self, network: ProteinModel, task: DriftTask, calibrating: Sequence[str]) -> None:
        self.store = RunStore(None)
        self.model = ScoredModel("model", network, model_hash(network), [task], calibrating, self.store)
        task.means(self.model.float_outcomes()[0])

    def __call__(self, recipe: Recipe, kind: str, predicted: float | None) -> dict[str, Any]:
        labels = {"recipe": recipe.name, "kind": kind}
        job = Job(labels, fingerprint(self.model.settings(recipe)), partial(self._measure, recipe))
        (row,) = run_grid([job], self.store)
        bits = {name: row[name] for name in ("weight_bits", "activation_bits")}
        return {**labels, **bits, "predicted": predicted, **row["drift"]}

    def _measure(self, recipe: Recipe) -> dict[str, Any]:
        measured = self.model.measure(recipe, Execution(recipe, "simulate", "auto", torch.device("cpu")))
        return {**measured.sizes, "drift": self.model.tasks[0].means(measured.outcomes[0])}


def _within_drift(
    choice: FormatChoice, judge: Callable[[Recipe, str, float | None], dict[str, Any]], drift: str, largest: float
) -> tuple[Recipe, float]:
    """Return the recipe of fewest bits with a measured drift of at most `largest`, by bisection of the sum of losses.

    Raises
    ------
    ProtquantError
        If even the widest formats have a larger drift.
    """
    best: tuple[Recipe, float] | None = None
    fewest = float("inf")
    least, most = choice.losses
    high = math.log(max(most, _NOTHING))
    low = max(math.log(max(least, _NOTHING)), high - math.log(_NOTICEABLE))
    for number in range(_ROUNDS):
        # First the choice of least loss: if its drift is too large, the search ends.
        bound = (low + high) / 2
        recipe, predicted = choice.within_loss(least if number == 0 else math.exp(bound))
        row = judge(replace(recipe, name=f"choice {number + 1}"), "auto", predicted)
        if row[drift] <= largest and row["weight_bits"] < fewest:
            best, fewest = (recipe, predicted), row["weight_bits"]
        if best is None:
            break
        if number and row[drift] <= largest:
            low = bound
        elif number:
            high = bound
    if best is None:
        raise ProtquantError(
            f"no choice of these formats keeps {drift} within {largest:g}: where all are the best for it, it is "
            f"{row[drift]:.3g}. Allow more, offer more bits, or take a base that does less to activations"
        )
    return best
