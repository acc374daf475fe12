"""Models x recipes x reference structures to one table: what quantization costs."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold
from protquant.pipelines.calibration import calibration_sequences, gather_statistics, quantize
from protquant.pipelines.contacts import predict_contacts
from protquant.pipelines.devices import parse_dtype, pick_device
from protquant.pipelines.folding import check_folding_options, fold_within_memory
from protquant.proteins import Prediction
from protquant.quant import Recipe, Report, Statistics, load_recipe, needs_statistics, plan
from protquant.scores import (
    cb_distances,
    contact_precision,
    lddt_ca_per_residue,
    match_residues,
    plddt_error,
    probability_drift,
    rmsd_ca,
    score_structures,
    tm_score,
)
from protquant.structures import Reference, load_references, reference_from_atoms

__all__ = ["Evaluation", "evaluate"]

Task = Literal["structure", "contacts"]
FLOAT = "fp32"
_SCORES = ("tm_score", "gdt_ts", "lddt_ca", "rmsd_ca")


@dataclass
class Evaluation:
    """The results of `evaluate`.

    Attributes
    ----------
    task : {"structure", "contacts"}
    records : list of dict
        One per model and recipe: the means over the targets, effective bits, bytes.
    targets : list of dict
        One per model, recipe and target.
    failures : list of dict
        `model`, `recipe`, `target`, `error` of what could not be predicted: no part of the means.
    notes : list of str
        What a reader of the table must know.
    """

    task: Task
    records: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    notes: list[str]

    def to_frame(self) -> pd.DataFrame:
        """The records as a table."""
        return pd.DataFrame(self.records)

    def to_dict(self) -> dict[str, Any]:
        """All of it as one JSON document."""
        return {
            "task": self.task,
            "records": self.records,
            "targets": self.targets,
            "failures": self.failures,
            "notes": self.notes,
        }

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, float_format=lambda value: f"{value:.4f}")


def evaluate(
    models: Sequence[str] = ("demo",),
    recipes: Sequence[str | Path | Recipe] = (FLOAT, "w8a8-uniform", "w8a8-pwlq"),
    task: Task = "structure",
    *,
    structures: Path | None = None,
    limit: int | None = None,
    num_recycles: int | None = None,
    chunk_size: int | None = None,
    calibration: Path | None = None,
    cpu_only: bool = False,
    dtype: str = "float32",
) -> Evaluation:
    """Score models under recipes against reference structures.

    The float model is always the first row, and what the drift is measured against.

    Parameters
    ----------
    models : sequence of str
        As for `load`. Folding models for "structure"; for "contacts" also language models (of a folding model the
        language model is taken).
    recipes : sequence
        Shipped names, YAML files, or recipes.
    task : {"structure", "contacts"}
        TM-score, GDT-TS, lDDT, RMSD and pLDDT of predictions; or precision of predicted contacts.
    structures : Path, optional
        Folder of PDB or mmCIF files; by default the 50 chains that ship with protquant.
    limit : int, optional
        Only the first so many structures.
    calibration : Path, optional
        FASTA of sequences to calibrate on.

    Raises
    ------
    ProtquantError
        If a model, recipe, folder or setting cannot be used.
    """
    if task not in ("structure", "contacts"):
        raise ProtquantError(f"unknown task {task!r}; choose structure or contacts")
    check_folding_options(num_recycles, chunk_size)
    loaded = [load_recipe(recipe) for recipe in recipes]
    if not any(_is_float(recipe) for recipe in loaded):
        loaded.insert(0, load_recipe(FLOAT))
    loaded.sort(key=lambda recipe: not _is_float(recipe))  # stable: the float model first, the rest as given
    references = load_references(structures, limit)
    sequences = calibration_sequences(calibration)
    evaluation = Evaluation(task, [], [], [], _notes(models, references, structures, sequences))
    score: Callable[..., dict[str, Any]] = _score_contacts
    if task == "structure":
        score = partial(_score_structure, num_recycles=num_recycles, chunk_size=chunk_size)
    for name in models:
        model = load(name, dtype=parse_dtype(dtype), device=pick_device(cpu_only))
        if task == "structure" and not isinstance(model, ESMFold):
            raise ProtquantError(f"{name} is a language model and cannot fold; use --task contacts")
        if task == "contacts" and isinstance(model, ESMFold):
            model = model.lm
        statistics: dict[str, Statistics] | None = None
        baseline: dict[str, NDArray[np.float64]] = {}
        for recipe in loaded:
            if statistics is None and not recipe.steps and needs_statistics(plan(model, recipe)):
                statistics = gather_statistics(model, sequences, progress=sys.stderr.isatty())
            quantized, report = quantize(model, recipe, sequences, statistics=statistics)
            labels = {"model": name, "recipe": recipe.name, "dtype": dtype}
            targets: list[dict[str, Any]] = []
            started = time.perf_counter()
            for reference in _bar(references, f"{name}, {recipe.name}"):
                try:
                    targets.append({"target": reference.name, **score(quantized, reference, baseline)})
                except ProtquantError as error:
                    evaluation.failures.append({**labels, "target": reference.name, "error": str(error)})
            seconds = time.perf_counter() - started
            if not targets:
                first = evaluation.failures[-len(references)]
                raise ProtquantError(f"{name}, {recipe.name}: {first['target']}: {first['error']}")
            evaluation.targets += [{**labels, **target} for target in targets]
            evaluation.records.append({**labels, **_summary(targets, report, seconds)})
    return evaluation


def _is_float(recipe: Recipe) -> bool:
    """Whether a recipe leaves every site as it is."""
    return not any([*recipe.kinds.values(), *recipe.sites.values()])


def _notes(
    models: Sequence[str], references: Sequence[Reference], structures: Path | None, sequences: Sequence[str]
) -> list[str]:
    where = "the 50 chains that ship with protquant" if structures is None else str(structures)
    notes = [
        f"{len(references)} reference structures from {where}.",
        f"Where a recipe freezes ranges, they were calibrated on {len(sequences)} sequences.",
        "Execution is simulated (quantize-dequantize in float): seconds say nothing about integer kernels.",
    ]
    if structures is not None:
        notes.append("What is folded is the residues present in each file: gaps in a structure are closed up.")
    if "demo" in models and structures is None:
        notes.append(
            "The demo model has memorized these 50 chains: its scores say what quantization takes away, "
            "not how well it predicts."
        )
    return notes


def _summary(targets: Sequence[dict[str, Any]], report: Report, seconds: float) -> dict[str, Any]:
    frame = pd.DataFrame(targets)
    means = frame.drop(columns=["target", "length"]).mean(numeric_only=True)
    return {
        "targets": len(targets),
        **{str(name): float(value) for name, value in means.items()},
        "weight_bits": report.weight_bits,
        "activation_bits": report.activation_bits,
        "weight_bytes": report.weight_bytes,
        "seconds": seconds,
    }


def _bar(references: Sequence[Reference], label: str) -> "tqdm[Reference]":
    return tqdm(references, desc=label, unit="protein", disable=not sys.stderr.isatty(), leave=False)


def _score_structure(
    model: ESMFold,
    reference: Reference,
    baseline: dict[str, NDArray[np.float64]],
    num_recycles: int | None,
    chunk_size: int | None,
) -> dict[str, Any]:
    """Fold and score; `baseline` holds the C-alphas of the first call, that of the float model."""
    prediction = fold_within_memory(
        model, [reference.sequence], [reference.name], num_recycles=num_recycles, chunk_size=chunk_size
    )[0]
    folded = reference_from_atoms(prediction.atoms, prediction.name)
    float_ca = baseline.setdefault(reference.name, folded.ca)
    scores = score_structures(folded, reference).to_dict()
    return {
        "length": len(reference),
        **{name: scores[name] for name in _SCORES},
        **_plddt_scores(prediction, folded, reference),
        "ptm": prediction.ptm,
        "tm_to_float": tm_score(folded.ca, float_ca).score,
        "rmsd_to_float": rmsd_ca(folded.ca, float_ca),
    }


def _plddt_scores(prediction: Prediction, folded: Reference, reference: Reference) -> dict[str, float]:
    predicted, matched = match_residues(folded, reference)
    lddt = lddt_ca_per_residue(folded.ca[predicted], reference.ca[matched])
    return {"plddt": prediction.mean_plddt, "plddt_error": plddt_error(prediction.plddt[predicted], lddt)}


def _score_contacts(model: ESM2, reference: Reference, baseline: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Predict and score contacts; `baseline` holds the probabilities of the float model."""
    probabilities = predict_contacts(model, reference.sequence)
    return {
        "length": len(reference),
        **contact_precision(probabilities, cb_distances(reference.cb)),
        "contact_drift": probability_drift(probabilities, baseline.setdefault(reference.name, probabilities)),
    }
