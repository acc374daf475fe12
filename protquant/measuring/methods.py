"""Compare every method at every setting, on a language model and a folding model, in one resumable table."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from protquant.checkpoints import load
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.files import fingerprint
from protquant.files.run_store import RunStore
from protquant.measuring.evaluate import describe_heldout
from protquant.measuring.grid import DONE, PARTIAL, Job, Measured, ScoredModel, model_identity, run_grid
from protquant.measuring.method_grid import Cell, MethodGrid, Part, group_size, load_method_grid, write_recipes
from protquant.measuring.references import references_of
from protquant.measuring.tasks import ContactTask, LanguageTask, StructureTask, Task, heldout_records
from protquant.options import MethodsOptions, takes
from protquant.preparing.quantize import calibration_sequences
from protquant.quant import Recipe
from protquant.reporting.progress import note
from protquant.running.devices import pick_device
from protquant.running.execution import Execution

__all__ = ["FLOAT_METHOD", "SCORES", "MethodTable", "compare_methods"]

FLOAT_METHOD = "float"
SCORES: dict[Part, tuple[str, ...]] = {
    "language": ("long P@L", "contact_drift", "masked_accuracy", "pseudo_perplexity", "logit_kl"),
    "folding": ("tm_score", "lddt_ca", "tm_to_float", "lddt_drift"),
}
"""Scores in the table of each part; the file has all scores."""

MISSING, UNMEASURED = "not available", "not measured"
_CPU = torch.device("cpu")  # for simulations: the device of the model


@dataclass
class MethodTable:
    """The results of `compare_methods`.

    Attributes
    ----------
    rows : list of dict
        One per cell: `part`, `model`, `method`, `setting`, `status` (`done`; `partial`, some targets failed; `failed`;
        `not available`; `not measured`), `error`, `undefined` (how many targets have no value of a score), scores,
        bits, bytes, seconds. The float model has the method `float`.
    grid : MethodGrid
        The methods and settings.
    notes : list of str
        Notes for readers of the table.
    facts : dict
        Versions, seed, and fingerprints of models.
    """

    rows: list[dict[str, Any]]
    grid: MethodGrid
    notes: list[str]
    facts: dict[str, str]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Rows of cells that are not complete."""
        return [row for row in self.rows if row["status"] != DONE]

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a table."""
        return pd.DataFrame(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a JSON document."""
        methods = {name: method.title for name, method in self.grid.methods.items()}
        return {"rows": self.rows, "methods": methods, "notes": self.notes, "facts": self.facts}

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, float_format=lambda value: f"{value:.4f}")


@dataclass
class _Part:
    """A part of the table: a float model, its cells, and the seed of random numbers."""

    part: Part
    model: ScoredModel
    cells: list[Cell]
    seed: int

    def jobs(self) -> Iterator[Job]:
        """Yield a job for the float model, and one for each cell."""
        float_recipe = Recipe(name=FLOAT_METHOD)
        yield Job(
            self._labels(FLOAT_METHOD, FLOAT_METHOD),
            self._key(FLOAT_METHOD, FLOAT_METHOD, None),
            lambda: self._row(self.model.measure(float_recipe, Execution(float_recipe, None, "auto", _CPU))),
        )
        for cell in self.cells:
            key = self._key(cell.method, cell.setting, cell.recipe)
            labels = self._labels(cell.method, cell.setting)
            yield Job(labels, key, partial(self._measure, cell, key), failed=self._made_by())

    def _key(self, method: str, setting: str, recipe: Recipe | None) -> str:
        cell = [self.part, method, setting]
        return fingerprint({"cell": cell, "seed": self.seed, **self.model.settings(recipe)})

    def _labels(self, method: str, setting: str) -> dict[str, Any]:
        return {"part": self.part, "model": self.model.name, "method": method, "setting": setting}

    def _measure(self, cell: Cell, key: str) -> dict[str, Any]:
        if cell.recipe is None:
            return {"status": MISSING, "error": f"not in this version: {cell.missing}", **self._made_by()}
        running = Execution(cell.recipe, "simulate", "auto", _CPU)
        self.model.float_outcomes()
        torch.manual_seed(self.seed)
        with _training_file(self.model.store.folder, key) as checkpoint:
            measured = self.model.measure(cell.recipe, running, checkpoint=checkpoint, seed=self.seed)
        return {**self._row(measured), "quantize_seconds": round(measured.quantize_seconds, 1)}

    def _row(self, measured: Measured) -> dict[str, Any]:
        measured.require_targets()
        outcomes = list(zip(self.model.tasks, measured.outcomes, strict=True))
        failures = [failure for _, outcome in outcomes for failure in outcome.failures]
        undefined = [f"{score}: {len(names)}" for _, each in outcomes for score, names in each.undefined().items()]
        error = None
        if failures:
            error = f"{len(failures)} targets failed, {failures[0]['target']} first: {failures[0]['error']}"
        return {
            "status": measured.status,
            "error": error,
            "undefined": "; ".join(undefined) or None,
            **self._made_by(),
            "targets": len(outcomes[0][1].targets),
            **{score: mean for task, outcome in outcomes for score, mean in task.means(outcome).items()},
            "score_seconds": round(sum(outcome.seconds for _, outcome in outcomes), 1),
            **measured.sizes,
        }

    def _made_by(self) -> dict[str, Any]:
        return {**{name: version(name) for name in ("protquant", "torch")}, "seed": self.seed}


@contextmanager
def _training_file(folder: Path | None, key: str) -> Iterator[Path | None]:
    """Yield the file of a training's state, which is deleted unless the run is interrupted."""
    if folder is None:
        yield None
        return
    path = folder / f"training-{key[:16]}.safetensors"
    try:
        yield path
    except Exception:
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


@takes(MethodsOptions)
def compare_methods(options: MethodsOptions) -> MethodTable:
    """Quantize models by every method at every setting, and score them.

    Scores of a language model (or that of a folding model) are contacts of reference structures and masked residues of
    held-out sequences; scores of a folding model are its structures. A failed cell becomes a row with its error.

    Raises
    ------
    ProtquantError
        If a model, name, file or setting cannot be used.
    """
    if options.lm is None and options.model is None:
        raise ProtquantError("neither a language model nor a folding model: there is nothing to compare methods on")
    mask_every = options.mask_every or None
    chosen = load_method_grid(options.grid)
    store = RunStore(options.output, done=(DONE, PARTIAL))
    sequences = calibration_sequences(options.calibration)
    references, records = references_of(options.structures, options.limit), heldout_records(options.heldout)
    where = "the 50 chains that ship with protquant" if options.structures is None else str(options.structures)
    notes = list(chosen.notes)
    asked: list[tuple[Part, str, list[Task]]] = []
    if options.lm is not None:
        asked.append(("language", options.lm, [ContactTask(references), LanguageTask(records, mask_every)]))
        shown = Path(options.lm).name
        notes.append(f"Contacts of {shown}: {len(references)} of {where}; P@L of pairs 24 residues apart and more.")
        notes.append(f"Hidden residues of {shown}: {describe_heldout(records, options.heldout, mask_every)}")
    if options.model is not None:
        asked.append(("folding", options.model, [StructureTask(references, options.num_recycles)]))
        notes.append(
            f"Folds of {Path(options.model).name}: {len(references)} of {where}. lDDT drift: 1 - lDDT to the float's."
        )
    notes.append(f"Ranges, and all that steps look at, are of {len(sequences)} calibration sequences.")
    facts = {name: version(name) for name in ("protquant", "torch")}
    facts |= {"Python": platform.python_version(), "machine": platform.machine(), "seed": str(options.seed)}
    shown_parts: list[_Part] = []
    for part, name, tasks in asked:
        network = load(name, device=pick_device(options.cpu_only))
        scored = tasks[0].network(network, name)
        if part == "folding":
            notes += notes_on_targets(scored, [each.sequence for each in references], options.structures is None)
        measured = ScoredModel(name, scored, model_identity(network), tasks, sequences, store)
        shown_parts.append(
            _Part(
                part, measured, chosen.cells(part, group_size(scored), options.methods, options.settings), options.seed
            )
        )
        facts[f"{part} model"] = f"{Path(name).name} (weights {network.fingerprint[:16]})"
    if options.recipes is not None:
        write_recipes([cell for each in shown_parts for cell in each.cells], options.recipes)
    jobs = [job for each in shown_parts for job in each.jobs()]
    rows = []
    if options.measure:
        for row in run_grid(jobs, store, "methods", len(jobs)):
            if row["status"] != DONE:
                note("{model}, {method} {setting}: {error}".format(**row), "error")
            rows.append(row)
    else:
        unknown = {"status": UNMEASURED, "error": "not in the table yet"}
        rows = [{**(store.finished(job.key) or unknown), **job.labels} for job in jobs]
    return MethodTable(rows, chosen, notes + _undefined(rows), facts)


def _undefined(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a text on the scores without a value for some targets, and the number of these targets."""
    by_text: dict[str, list[str]] = {}
    for row in rows:
        if row.get("undefined"):
            by_text.setdefault(row["undefined"], []).append(f"{row['method']} {row['setting']} ({row['part']})")
    return [
        f"Targets without a value, which are no part of the mean, in {len(cells)} cells, {cells[0]} first: {text}."
        for text, cells in by_text.items()
    ]
