"""`protquant bench fold`: one protein folded in float, by the simulation of a recipe, and on integers."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from protquant.bench.agreement import ca_trace
from protquant.bench.choices import check_backend
from protquant.bench.integer_run import integer_run, named_recipes
from protquant.bench.options import FoldBenchOptions
from protquant.bench.paired_benchmark import Candidate, paired_benchmark
from protquant.bench.report import RATIO_NOTE, BenchReport, Section
from protquant.bench.worker import Run
from protquant.bench.worker_process import count_threads
from protquant.checkpoints import load
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.options import takes
from protquant.predicting.example import example_fasta
from protquant.predicting.folding import check_folding_model, check_folding_options, fold_within_memory
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.proteins import Prediction, read_fasta
from protquant.quant import load_recipe
from protquant.reporting.machine import describe_machine
from protquant.running.execution import Execution
from protquant.scores import rmsd_ca, tm_score

__all__ = ["bench_fold"]

_BASELINES = ("float32", "bfloat16")


@takes(FoldBenchOptions)
def bench_fold(options: FoldBenchOptions) -> BenchReport:
    """Fold one protein by each execution in turn, round by round.

    Returns
    -------
    BenchReport
        The deviation is the CA-RMSD to the float32 prediction, in angstrom. The facts have the distance between
        integers and their simulation for each recipe.

    Raises
    ------
    ProtquantError
        If the model is not a float ESMFold, or a file or recipe cannot be used.
    """
    check_backend(options.backend)
    check_folding_options(options.num_recycles, None)
    threads, device = count_threads(options.threads), torch.device(options.device)
    recipes = named_recipes(options.quants)
    calibration_sequences(options.calibration)  # Refuse an unusable file before the work begins.
    network, sequence = check_folding_model(load(options.model, device=device)), _first_sequence(options.fasta)
    target_notes = notes_on_targets(network, [sequence], shipped=False)
    del network
    given: dict[str, Any] = {
        "model": options.model,
        "sequence": sequence,
        "num_recycles": options.num_recycles,
        "device": str(device),
    }
    candidates = [Candidate(dtype, folding_in_float, {"dtype": dtype, **given}) for dtype in _BASELINES]
    given |= {"calibration": None if options.calibration is None else str(options.calibration)}
    for name, recipe in recipes.items():
        simulated = {"recipe": recipe, "execution": "simulate", "backend": "auto", **given}
        candidates.append(
            Candidate(_simulated(name), folding_quantized, simulated, "quantize-dequantize in float32"),
        )
        integer = {**simulated, "execution": "integer", "backend": options.backend}
        candidates.append(Candidate(name, folding_quantized, integer))
    traces: dict[str, np.ndarray] = {}

    def compare(name: str, found: np.ndarray, reference: np.ndarray) -> float:
        traces[name] = found
        return rmsd_ca(found, reference)

    results = paired_benchmark(
        candidates,
        _BASELINES,
        rounds=options.rounds,
        threads=threads,
        device=device.type,
        memory=options.memory,
        compare=compare,
        progress=options.progress,
    )
    path = Path(options.model)
    model = path.name if path.exists() else options.model  # a report does not name folders
    settings: dict[str, Any] = {
        "model": model,
        "length": len(sequence),
        "rounds": options.rounds,
        "backend": options.backend,
    }
    settings |= {"threads": threads, "device": device.type, "quants": list(recipes)}
    between = {name: _between(traces.get(name), traces.get(_simulated(name))) for name in recipes}
    section = Section(
        f"{model}, {len(sequence)} residues", results, _BASELINES, {"integers against simulation": between}
    )
    notes = [RATIO_NOTE, "deviation: CA-RMSD to the float32 prediction, in angstrom.", *target_notes]
    for name, found in between.items():
        if found is not None:
            notes.append(
                "{}: integers are {rmsd:.4f} angstrom from their simulation, TM {tm:.4f}".format(name, **found)
            )
    return BenchReport("fold", settings, replace(describe_machine(), threads=threads), [section], tuple(notes))


def folding_in_float(dtype: str, model: str, device: str, sequence: str, num_recycles: int | None) -> Run:
    """Return a worker's run of the float model, in `float32` or `bfloat16`."""
    network = check_folding_model(load(model, device=torch.device(device)))
    if dtype == "bfloat16":
        network = network.set_compute_dtype(torch.bfloat16)
    return Run(partial(_fold, network, sequence, num_recycles), ca_trace)


def folding_quantized(
    recipe: str,
    execution: str,
    backend: str,
    calibration: str | None,
    model: str,
    device: str,
    sequence: str,
    num_recycles: int | None,
) -> Run:
    """Return a worker's run of the model with a recipe: simulated, or on integers."""
    parsed, network = load_recipe(recipe), check_folding_model(load(model, device=torch.device(device)))
    running = Execution(parsed, execution, backend, torch.device(device))
    sequences = calibration_sequences(None if calibration is None else Path(calibration))
    converted = running.convert(quantize(network, parsed, sequences, execution="simulate")[0])
    run = partial(_fold, converted, sequence, num_recycles)
    return integer_run(running, run, ca_trace) if running.integer else Run(run, ca_trace)


def _fold(model: ESMFold, sequence: str, num_recycles: int | None) -> Prediction:
    return fold_within_memory(model, [sequence], ["protein"], num_recycles=num_recycles)[0]


def _between(one: np.ndarray | None, other: np.ndarray | None) -> dict[str, float] | None:
    """Return the distance between two predictions; None if one of them failed."""
    if one is None or other is None:
        return None
    return {"rmsd": rmsd_ca(one, other), "tm": tm_score(one, other).score}


def _simulated(name: str) -> str:
    return f"{name} simulated"


def _first_sequence(fasta: Path | None) -> str:
    if fasta is None:
        with example_fasta() as path:
            return _first_sequence(path)
    records = read_fasta(fasta).records
    if not records:
        raise ProtquantError(f"{fasta}: no record that can be folded")
    return records[0].sequence
