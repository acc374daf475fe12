"""`protquant bench agreement`: differences between float, the simulation of a recipe, and integers."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from protquant.bench.choices import check_backend
from protquant.bench.integer_run import named_recipes
from protquant.bench.options import AgreementOptions
from protquant.checkpoints import load
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.measuring.references import references_of
from protquant.models import ESMFold
from protquant.options import takes
from protquant.predicting.folding import check_folding_model, check_folding_options, fold_within_memory
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.proteins import Prediction
from protquant.quant import load_recipe
from protquant.reporting.steps import Steps
from protquant.running.execution import Execution
from protquant.scores import rmsd_ca, tm_score

__all__ = ["PAIRS", "ca_trace", "measure_agreement", "summarize_agreement"]

PAIRS = ("integer to simulation", "simulation to float", "integer to float")
"""Pairs of executions that are compared."""


@takes(AgreementOptions)
def measure_agreement(options: AgreementOptions) -> pd.DataFrame:
    """Fold chains in float, by the simulation of each recipe, and on integers.

    Returns
    -------
    DataFrame
        A row per recipe and chain: `recipe`, `chain`, `length`; for each of `PAIRS` the C-alpha RMSD in angstrom and
        the TM-score; and `support`, which says what ran on integers.

    Raises
    ------
    ProtquantError
        If the model is not a float ESMFold, or a file or recipe cannot be used.
    """
    check_backend(options.backend)
    check_folding_options(options.num_recycles, None)
    recipes = [load_recipe(quant) for quant in named_recipes(options.quants).values()]
    if not recipes:
        raise ProtquantError("nothing to compare: name a recipe with --quant")
    network = check_folding_model(load(options.model, device=torch.device(options.device)))
    sequences, references = calibration_sequences(options.calibration), references_of(options.structures, options.limit)
    folds = (1 + 2 * len(recipes)) * len(references)
    bar = Steps(total=folds, unit="fold", disable=None if options.progress is None else not options.progress)

    def traces(folding: ESMFold) -> list[np.ndarray]:
        found = []
        for reference in references:
            given = ([reference.sequence], [reference.name])
            found.append(ca_trace(fold_within_memory(folding, *given, num_recycles=options.num_recycles)[0]))
            bar.update()
        return found

    for note in notes_on_targets(network, [each.sequence for each in references], shipped=options.structures is None):
        tqdm.write(note, file=sys.stderr)
    rows = list[dict[str, Any]]()
    with bar:
        floats = traces(network)
        for recipe in recipes:
            quantized, _ = quantize(network, recipe, sequences, execution="simulate")
            simulated = traces(quantized)
            execution = Execution(recipe, "integer", options.backend, torch.device(options.device))
            running = execution.convert(quantized)
            assert execution.support is not None
            for reference, *three in zip(references, traces(running), simulated, floats, strict=True):
                row: dict[str, Any] = {"recipe": recipe.name, "chain": reference.name, "length": len(three[0])}
                for pair, (one, other) in zip(PAIRS, ((0, 1), (1, 2), (0, 2)), strict=True):
                    row[f"{pair}, RMSD"] = rmsd_ca(three[one], three[other])
                    row[f"{pair}, TM"] = tm_score(three[one], three[other]).score
                rows.append(row | {"support": execution.support.summary()})
    return pd.DataFrame(rows)


def ca_trace(prediction: Prediction) -> np.ndarray:
    """Return C-alpha coordinates of all residues, in angstrom."""
    atoms = prediction.atoms
    return np.asarray(atoms.coord[atoms.atom_name == "CA"])


def summarize_agreement(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return median RMSD, and mean and least TM-score, of each recipe and pair."""
    return [
        {
            "recipe": recipe,
            "pair": pair,
            "chains": len(rows),
            "RMSD": float(rows[f"{pair}, RMSD"].median()),
            "TM": float(rows[f"{pair}, TM"].mean()),
            "least TM": float(rows[f"{pair}, TM"].min()),
        }
        for recipe, rows in table.groupby("recipe", sort=False)
        for pair in PAIRS
    ]
