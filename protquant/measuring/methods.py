"""Every method at every setting, on a language model and on a folding model, to one table that can be resumed."""

import platform
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from protquant.checkpoints import load
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.files import fingerprint
from protquant.files.resumable_table import ResumableTable
from protquant.measuring.evaluate import describe_heldout, model_identity
from protquant.measuring.float_runs import run_float
from protquant.measuring.method_grid import Cell, MethodGrid, Part, group_size, load_method_grid, write_recipes
from protquant.measuring.references import references_of
from protquant.measuring.tasks import ContactTask, LanguageTask, Outcome, StructureTask, Task, heldout_records
from protquant.models import ProteinModel
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.quant import Recipe, Report
from protquant.reporting.progress import note
from protquant.reporting.steps import Steps
from protquant.running.choices import MASK_EVERY
from protquant.running.devices import pick_device

__all__ = ["FLOAT_METHOD", "SCORES", "MethodTable", "compare_methods"]

FLOAT_METHOD = "float"
SCORES: dict[Part, tuple[str, ...]] = {
    "language": ("long P@L", "contact_drift", "masked_accuracy", "pseudo_perplexity", "logit_kl"),
    "folding": ("tm_score", "lddt_ca", "tm_to_float", "lddt_drift"),
}
"""What the table shows of each part; the other scores of the tasks are in the file."""

DONE, PARTIAL, FAILED, MISSING, UNMEASURED = "done", "partial", "failed", "not available", "not measured"


@dataclass
class MethodTable:
    """The results of `compare_methods`.

    Attributes
    ----------
    rows : list of dict
        One per cell: `part`, `model`, `method`, `setting`, `status` (`done`; `partial`, some targets failed; `failed`;
        `not available`; `not measured`), `error`, `undefined` (how many targets have no value of a score), scores,
        bits, bytes, seconds. The float model's are of the method `float`.
    grid : MethodGrid
        What the methods are.
    notes : list of str
        What a reader of the table must know.
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
        """The rows as a table."""
        return pd.DataFrame(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it as one JSON document."""
        methods = {name: method.title for name, method in self.grid.methods.items()}
        return {"rows": self.rows, "methods": methods, "notes": self.notes, "facts": self.facts}

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, float_format=lambda value: f"{value:.4f}")


@dataclass
class _Bench:
    """A float model, the tasks it is scored on, and what all its cells share."""

    part: Part
    name: str
    model: ProteinModel
    identity: str
    tasks: list[Task]
    sequences: Sequence[str]
    seed: int
    resume: Path | None

    def key(self, cell: Cell) -> str:
        """Of all that the row depends on."""
        recipe = None
        if cell.recipe is not None:
            # Nor the execution: what is measured here is simulated.
            told = ("name", "description", "execution")
            recipe = {k: v for k, v in cell.recipe.to_dict().items() if k not in told}
        return fingerprint(
            {
                "cell": [cell.part, cell.method, cell.setting],
                "recipe": recipe,
                "model": self.identity,
                "tasks": [task.settings() for task in self.tasks],
                "sequences": self.sequences,
                "version": version("protquant"),
                "seed": self.seed,
            }
        )

    def measure_float(self) -> dict[str, Any]:
        """The row of the float model; its answers are what the cells to come are compared with."""
        _, report = quantize(self.model, Recipe(name=FLOAT_METHOD), self.sequences)
        outcomes = [
            run_float(task, self.model, f"{self.name}, float", self.resume, self.identity) for task in self.tasks
        ]
        return {**self.labels(FLOAT_METHOD, FLOAT_METHOD), **self._scores(outcomes), **_sizes(report)}

    def measure(self, cell: Cell, key: str) -> dict[str, Any]:
        """The row of a cell, whatever happens in it."""
        row = self.labels(cell.method, cell.setting)
        if cell.recipe is None:
            return {**row, "status": MISSING, "error": f"not in this version: {cell.missing}"}
        torch.manual_seed(self.seed)
        checkpoint = None if self.resume is None else self.resume / f"training-{key[:16]}.safetensors"
        started = time.perf_counter()
        try:
            model, report = quantize(
                self.model,
                cell.recipe,
                self.sequences,
                checkpoint=checkpoint,
                seed=self.seed,
            )
            seconds = time.perf_counter() - started
            outcomes = [task.run(model, f"{self.name}, {cell.recipe.name}") for task in self.tasks]
            row |= {**self._scores(outcomes), **_sizes(report), "quantize_seconds": round(seconds, 1)}
        except Exception as error:  # noqa: BLE001 (a cell that fails, however it does, is a row; the others go on)
            said = str(error) if isinstance(error, ProtquantError) else f"{type(error).__name__}: {error}"
            row |= {"status": FAILED, "error": " ".join(said.split())}
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return row

    def labels(self, method: str, setting: str) -> dict[str, Any]:
        """The row of a cell before anything is known of it."""
        return {
            "part": self.part,
            "model": self.name,
            "method": method,
            "setting": setting,
            "status": "",
            "error": None,
            "undefined": None,
            "protquant": version("protquant"),
            "torch": version("torch"),
            "seed": self.seed,
        }

    def _scores(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        failures = [failure for outcome in outcomes for failure in outcome.failures]
        means: dict[str, float] = {}
        undefined = []
        for task, outcome in zip(self.tasks, outcomes, strict=True):
            if not outcome.targets:
                raise ProtquantError(f"{outcome.failures[0]['target']}: {outcome.failures[0]['error']}")
            means |= task.means(outcome)
            undefined += [f"{score}: {len(targets)}" for score, targets in outcome.undefined().items()]
        error = None
        if failures:
            error = f"{len(failures)} targets failed, {failures[0]['target']} first: {failures[0]['error']}"
        return {
            "status": PARTIAL if failures else DONE,
            "error": error,
            "undefined": "; ".join(undefined) or None,
            "targets": len(outcomes[0].targets),
            **means,
            "score_seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        }


def _sizes(report: Report) -> dict[str, Any]:
    return {
        "weight_bits": report.weight_bits,
        "activation_bits": report.activation_bits,
        "weight_bytes": report.weight_bytes,
    }


def compare_methods(
    lm: str | None = "esm2_t6_8M",
    model: str | None = "demo",
    *,
    methods: Collection[str] | None = None,
    settings: Collection[str] | None = None,
    grid: Path | None = None,
    structures: Path | None = None,
    heldout: Path | None = None,
    limit: int | None = None,
    mask_every: int | None = MASK_EVERY,
    num_recycles: int | None = None,
    calibration: Path | None = None,
    seed: int = 0,
    cpu_only: bool = False,
    output: Path | None = None,
    recipes: Path | None = None,
    measure: bool = True,
) -> MethodTable:
    """Quantize models by every method at every setting, and score them.

    Of a language model (or that of a folding model): contacts of reference structures and hidden residues of held-out
    sequences; of a folding model: what it folds. A cell that fails is a row with its error.

    Parameters
    ----------
    lm, model : str or None
        A language model and a folding model, as for `load`; None leaves that part out.
    methods, settings : collection of str, optional
        Only these of the grid.
    grid : Path, optional
        YAML file of methods and settings; by default `configs/methods.yaml`.
    structures, heldout, mask_every, num_recycles, calibration
        As for `evaluate`.
    limit : int, optional
        Only the first so many structures.
    seed : int
        Of what methods that train draw at random.
    output : Path, optional
        Table that each cell is written to as soon as it is done, .csv. Cells that stand in it with the same recipe,
        model, targets, version and seed are not measured again; what else stands in it stays. What is needed to go on
        (the float model's answers, how far a training came) is kept beside it, in a folder of its name.
    recipes : Path, optional
        Folder that the recipe of every cell is written to.
    measure : bool
        False measures nothing, and says of cells that do not stand in `output` that they are not measured.

    Raises
    ------
    ProtquantError
        If a model, name, file or setting cannot be used.
    """
    if lm is None and model is None:
        raise ProtquantError("neither a language model nor a folding model: there is nothing to compare methods on")
    chosen = load_method_grid(grid)
    table = ResumableTable(output, done=(DONE, PARTIAL))
    resume = None if output is None else output.with_suffix(".resume")
    sequences = calibration_sequences(calibration)
    references, records = references_of(structures, limit), heldout_records(heldout)
    where = "the 50 chains that ship with protquant" if structures is None else str(structures)
    notes = list(chosen.notes)
    asked: list[tuple[Part, str, list[Task]]] = []
    if lm is not None:
        asked.append(("language", lm, [ContactTask(references), LanguageTask(records, mask_every)]))
        shown = Path(lm).name
        notes.append(f"Contacts of {shown}: {len(references)} of {where}; P@L of pairs 24 residues apart and more.")
        notes.append(f"Hidden residues of {shown}: {describe_heldout(records, heldout, mask_every)}")
    if model is not None:
        asked.append(("folding", model, [StructureTask(references, num_recycles)]))
        notes.append(f"Folds of {Path(model).name}: {len(references)} of {where}. lDDT drift: 1 - lDDT to the float's.")
    notes.append(f"Ranges, and all that steps look at, are of {len(sequences)} calibration sequences.")
    facts = {name: version(name) for name in ("protquant", "torch")}
    facts |= {"Python": platform.python_version(), "machine": platform.machine(), "seed": str(seed)}
    work: list[tuple[_Bench, list[Cell]]] = []
    for part, name, tasks in asked:
        network = load(name, device=pick_device(cpu_only))
        scored = tasks[0].network(network, name)
        if part == "folding":
            notes += notes_on_targets(scored, [each.sequence for each in references], structures is None)
        identity = model_identity(network)
        work.append(
            (
                _Bench(part, name, scored, identity, tasks, sequences, seed, resume),
                chosen.cells(part, group_size(scored), methods, settings),
            )
        )
        facts[f"{part} model"] = f"{Path(name).name} (weights {network.fingerprint[:16]})"
    if recipes is not None:
        write_recipes([cell for _, cells in work for cell in cells], recipes)
    rows = _measure_all(work, table) if measure else _look_up(work, table)
    notes += _undefined(rows)
    return MethodTable(rows, chosen, notes, facts)


def _measure_all(work: Sequence[tuple[_Bench, list[Cell]]], table: ResumableTable) -> list[dict[str, Any]]:
    rows = []
    count = sum(1 + len(cells) for _, cells in work)
    with Steps(total=count, desc="methods", unit="cell", disable=not sys.stderr.isatty()) as bar:
        for bench, cells in work:
            keys = [bench.key(cell) for cell in cells]
            float_key = bench.key(Cell(FLOAT_METHOD, FLOAT_METHOD, bench.part, None))
            row = table.finished(float_key)
            # The cells to come need the answers of the float model, be its row there or not.
            if row is None or any(table.finished(key) is None for key in keys):
                row = table.add(float_key, bench.measure_float())
            rows.append(row)
            bar.update()
            for cell, key in zip(cells, keys, strict=True):
                bar.set_postfix_str(f"{bench.name}, {cell.method} {cell.setting}")
                row = table.finished(key) or table.add(key, bench.measure(cell, key))
                if row["status"] != DONE:
                    note(f"{bench.name}, {cell.method} {cell.setting}: {row['error']}", "error")
                rows.append(row)
                bar.update()
    return rows


def _look_up(work: Sequence[tuple[_Bench, list[Cell]]], table: ResumableTable) -> list[dict[str, Any]]:
    rows = []
    for bench, cells in work:
        for cell in [Cell(FLOAT_METHOD, FLOAT_METHOD, bench.part, None), *cells]:
            unknown = {**bench.labels(cell.method, cell.setting), "status": UNMEASURED, "error": "not in the table yet"}
            rows.append(table.finished(bench.key(cell)) or unknown)
    return rows


def _undefined(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say which means leave out targets, and how many, because the score has no value for them."""
    by_text: dict[str, list[str]] = {}
    for row in rows:
        if row.get("undefined"):
            by_text.setdefault(row["undefined"], []).append(f"{row['method']} {row['setting']} ({row['part']})")
    return [
        f"Targets without a value, which are no part of the mean, in {len(cells)} cells, {cells[0]} first: {text}."
        for text, cells in by_text.items()
    ]
