"""Evaluate models x recipes on reference structures or sequences, in one table."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from protquant.checkpoints import load, scheme_of
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.files import fingerprint
from protquant.files.run_store import RunStore
from protquant.measuring.grid import DONE, Job, ScoredModel, model_identity, run_grid
from protquant.measuring.references import references_of
from protquant.measuring.tasks import (
    ContactTask,
    LanguageTask,
    Outcome,
    StructureTask,
    Task,
    heldout_records,
)
from protquant.options import EvaluateOptions, TaskName, check_task, takes
from protquant.predicting.folding import check_folding_options
from protquant.preparing.quantize import calibration_sequences
from protquant.preparing.quantize_checkpoint import already_quantized
from protquant.proteins import Record
from protquant.quant import Recipe, Report, available_recipes, load_recipe
from protquant.reporting.progress import note
from protquant.running.devices import parse_dtype, pick_device
from protquant.running.execution import Execution, is_float, wants_integers
from protquant.structures import Reference

__all__ = ["Evaluation", "describe_heldout", "evaluate", "undefined_notes"]

FLOAT = "fp32"


@dataclass
class Evaluation:
    """The results of `evaluate`.

    Attributes
    ----------
    task : {"structure", "contacts", "language"}
    records : list of dict
        One per model and recipe: the means over the targets, effective bits, bytes.
    targets : list of dict
        One per model, recipe and target.
    failures : list of dict
        `model`, `recipe`, `target`, `error` of each failure; failures are not part of the means.
    notes : list of str
        Notes for readers of the table.
    weights : dict
        Fingerprint of the weights of each model by its name.
    executions : list of dict
        `model`, `recipe`, and the execution of every part of the model, for integer models.
    """

    task: TaskName
    records: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    notes: list[str]
    weights: dict[str, str] = field(default_factory=dict)
    executions: list[dict[str, Any]] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """Return the records as a table."""
        return pd.DataFrame(self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a JSON document."""
        return {
            "task": self.task,
            "records": self.records,
            "targets": self.targets,
            "failures": self.failures,
            "notes": self.notes,
            "weights": self.weights,
            "executions": self.executions,
        }

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, float_format=lambda value: f"{value:.4f}")


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluation:
    """Score models under recipes against reference structures, or on held-out sequences.

    The float model is always the first row; drift is measured against it.

    Raises
    ------
    ProtquantError
        If a model, recipe, folder or setting cannot be used.
    """
    check_task(options.task)
    check_folding_options(options.num_recycles, options.chunk_size)
    saved = {name: scheme for name in options.models if (scheme := scheme_of(name)) is not None}
    quantized = len(saved) == len(set(options.models))
    asked = ([FLOAT] if quantized else available_recipes()) if options.recipes is None else options.recipes
    loaded = [load_recipe(recipe) for recipe in asked]
    if saved and quantized and not all(map(is_float, loaded)):
        raise already_quantized(*next(iter(saved.items())))
    if not any(is_float(recipe) for recipe in loaded):
        loaded.insert(0, load_recipe(FLOAT))
    device = pick_device(options.cpu_only)
    _check_executions(
        [*loaded, *(scheme.report.recipe for scheme in saved.values())], options.execution, options.backend, device
    )
    loaded.sort(key=lambda recipe: not is_float(recipe))  # the sort is stable: float first, then the given order
    references = [] if options.task == "language" else references_of(options.structures, options.limit)
    records = heldout_records(options.heldout, options.limit) if options.task == "language" else []
    if options.task == "language":
        notes = [describe_heldout(records, options.heldout, options.mask_every or None)]
    else:
        notes = _structure_notes(references, options.structures)
    sequences = calibration_sequences(options.calibration)
    notes.append(f"Where a recipe freezes ranges, they were calibrated on {len(sequences)} sequences.")
    notes.append("Simulated execution quantizes and dequantizes in float: seconds say nothing about integer kernels.")
    evaluation = Evaluation(options.task, [], [], [], notes)
    store = RunStore(None if options.cache is None else options.cache / "rows.jsonl", done=(DONE,))
    make_task = partial(
        _make_task,
        options.task,
        references,
        records,
        options.mask_every or None,
        options.num_recycles,
        options.chunk_size,
    )
    baselines: dict[str, Any] = {}
    known: list[str] = []

    def jobs() -> Iterator[Job]:
        for name in sorted(options.models, key=lambda name: name in saved):
            scored = make_task()
            network = load(name, dtype=parse_dtype(options.dtype), device=device)
            evaluation.weights[name] = network.fingerprint
            model = ScoredModel(
                name, scored.network(network, name), model_identity(network), [scored], sequences, store
            )
            targets = [reference.sequence for reference in references]
            remarks = notes_on_targets(model.model, targets, options.structures is None) if targets else []
            evaluation.notes += [remark for remark in remarks if remark not in evaluation.notes]
            report = saved[name].report if name in saved else None
            compared = saved[name].float_fingerprint if name in saved else ""
            scored.baseline = baselines.get(compared, {})
            for recipe in loaded if report is None else [report.recipe]:
                running = _execution(recipe, options.execution, options.backend, device)
                settings = {**model.settings(recipe), **running.settings()}
                key = fingerprint({**settings, "compared": compared if scored.baseline else ""})
                known.extend([key] * (store.finished(key) is not None))
                labels = {"model": name, "recipe": recipe.name, "dtype": options.dtype}
                yield Job(labels, key, partial(_measure, model, recipe, running, report))
            if any(scheme.float_fingerprint == network.fingerprint for scheme in saved.values()):
                model.float_outcomes()
                baselines.setdefault(network.fingerprint, scored.baseline)

    means = make_task().means
    undefined: dict[tuple[str, ...], Outcome] = {}
    for row in run_grid(jobs(), store):
        outcome = Outcome(row["targets"], row["failures"], row["seconds"])
        labels = {name: row[name] for name in ("model", "recipe", "dtype")}
        evaluation.failures += [{**labels, **failure} for failure in outcome.failures]
        evaluation.targets += [{**labels, **target} for target in outcome.targets]
        sizes = {name: row[name] for name in ("weight_bits", "activation_bits", "weight_bytes")}
        scores = {"targets": len(outcome.targets), **means(outcome), **sizes, "seconds": outcome.seconds}
        evaluation.records.append({**labels, **scores, **row["columns"]})
        if row["execution"] is not None:
            evaluation.notes.append("{model}, {recipe}: {execution[summary]}.".format(**row))
            evaluation.executions.append({**labels, **row["execution"]})
        undefined[row["model"], row["recipe"]] = outcome
    if known:
        note(f"{len(known)} of {len(evaluation.records)} rows were measured before; they are in {store.path}")
    evaluation.notes += undefined_notes(undefined)
    return evaluation


def _measure(model: ScoredModel, recipe: Recipe, running: Execution, saved: Report | None) -> dict[str, Any]:
    measured = model.measure(recipe, running, saved=saved)
    measured.require_targets(f"{model.name}, {recipe.name}: ")
    return {
        "status": measured.status,
        **asdict(measured.outcomes[0]),
        **measured.sizes,
        "columns": running.columns(),
        "execution": running.to_dict() if running.integer else None,
    }


def _check_executions(recipes: Sequence[Recipe], execution: str | None, backend: str, device: torch.device) -> None:
    """Raise an error early for recipes that cannot run."""
    quantizing = [recipe for recipe in recipes if not is_float(recipe)]
    if backend != "auto" and not any(wants_integers(recipe, execution) for recipe in quantizing):
        raise ProtquantError(f"backend {backend} has kernels for integers, and nothing is to run on them")
    for recipe in quantizing:
        _execution(recipe, execution, backend, device)


def _execution(recipe: Recipe, execution: str | None, backend: str, device: torch.device) -> Execution:
    if is_float(recipe):
        execution = "simulate"
    return Execution(recipe, execution, backend if wants_integers(recipe, execution) else "auto", device)


def _make_task(
    task: TaskName,
    references: Sequence[Reference],
    records: Sequence[Record],
    mask_every: int | None,
    num_recycles: int | None,
    chunk_size: int | None,
) -> Task:
    if task == "structure":
        return StructureTask(references, num_recycles, chunk_size)
    if task == "contacts":
        return ContactTask(references)
    return LanguageTask(records, mask_every)


def describe_heldout(records: Sequence[Record], heldout: Path | None, mask_every: int | None) -> str:
    """Return one or two sentences on the data and method of the language model's scores."""
    where = "held-out UniProt sequences that ship with protquant" if heldout is None else f"sequences of {heldout}"
    how = (
        "one at a time"
        if mask_every is None
        else f"those {mask_every} apart together, which is not quite the pseudo-perplexity of one at a time"
    )
    return (
        f"{len(records)} {where}, {sum(record.length for record in records)} residues, each hidden once, {how}. "
        "KL is that of the float model's probabilities to these, in nats per hidden residue."
    )


def _structure_notes(references: Sequence[Reference], structures: Path | None) -> list[str]:
    where = "the 50 chains that ship with protquant" if structures is None else str(structures)
    notes = [f"{len(references)} reference structures from {where}."]
    if structures is not None:
        notes.append("What is folded is the residues present in each file: gaps in a structure are closed up.")
    return notes


def undefined_notes(outcomes: dict[tuple[str, ...], Outcome]) -> list[str]:
    """A sentence for every set of scores that are NaN for a target, and so no part of a mean; none where all are."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for label, outcome in outcomes.items():
        scores_of: dict[tuple[str, ...], list[str]] = {}
        for score, missing in outcome.undefined().items():
            scores_of.setdefault(tuple(missing), []).append(score)
        for targets, scores in scores_of.items():
            groups.setdefault((tuple(scores), targets), []).append(", ".join(label))
    notes = []
    for (names, targets), labels in groups.items():
        shown = ", ".join(targets[:3]) + (" and others" if len(targets) > 3 else "")
        where = labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"
        notes.append(
            f"{', '.join(names)}: no value for {len(targets)} targets ({shown}) of {where}; "
            "means are over the targets that have one."
        )
    return notes
