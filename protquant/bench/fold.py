"""`protquant bench fold`: one protein folded in float, by the simulation of a recipe, and on integers."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from protquant.bench.agreement import ca_trace
from protquant.bench.contest import Contender, run_contest
from protquant.bench.integer_runs import IntegerRun, check_backend
from protquant.bench.report import BenchReport, Section
from protquant.bench.setting import computing_with, finish_on
from protquant.checkpoints import load
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.predicting.example import example_fasta
from protquant.predicting.folding import check_folding_model, check_folding_options, fold_within_memory
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.proteins import Prediction, read_fasta
from protquant.quant import Recipe, load_recipe
from protquant.reporting.machine import describe_machine
from protquant.running.peak_memory import peak_memory
from protquant.scores import rmsd_ca, tm_score

__all__ = ["bench_fold"]

_BASELINES = ("float32", "bfloat16")


def bench_fold(
    model: str = "demo",
    quants: Sequence[str | Path] = (),
    *,
    fasta: Path | None = None,
    num_recycles: int | None = None,
    rounds: int = 5,
    threads: int | None = None,
    backend: str = "auto",
    keep_memory: bool = False,
    memory: bool = False,
    device: torch.device | str = "cpu",
    calibration: Path | None = None,
    progress: bool | None = None,
) -> BenchReport:
    """Fold one protein again and again, by each execution in turn.

    Parameters
    ----------
    model : str
        Float model, as for `load`.
    quants : sequence of str or Path
        Recipes; each is simulated, and run on integers.
    fasta : Path, optional
        Its first record is folded; by default the first of the shipped example.
    num_recycles : int, optional
        By default as the model was trained.
    threads : int, optional
        That torch computes with; by default as many as now.
    backend : str
        Of the integer kernels.
    keep_memory : bool
        Whether freed memory is kept, see `FreedMemory`.
    memory : bool
        Whether to measure the peak of activations too.
    calibration : Path, optional
        FASTA to calibrate on; by default the 12 shipped proteins.

    Returns
    -------
    BenchReport
        The deviation is the CA-RMSD to the float32 prediction, in angstrom; what integers are from their simulation is
        among the facts, under the names of recipes.

    Raises
    ------
    ProtquantError
        If the model is no float ESMFold, or a file or recipe cannot be used.
    """
    check_backend(backend)
    check_folding_options(num_recycles, None)
    recipes = [load_recipe(quant) for quant in quants]
    device = torch.device(device)
    with computing_with(threads, keep_memory) as freed:
        network = check_folding_model(load(model, device=device))
        sequence = _first_sequence(fasta)
        sequences = calibration_sequences(calibration)
        prints = _Folds()
        job = partial(_fold, sequence=sequence, num_recycles=num_recycles)
        contenders = [
            Contender("float32", lambda: partial(job, network)),
            Contender("bfloat16", lambda: partial(job, copy.deepcopy(network).set_compute_dtype(torch.bfloat16))),
        ]
        for recipe in recipes:
            contenders += _of_recipe(recipe, network, sequences, backend, job)
        standings = run_contest(
            contenders,
            _BASELINES,
            rounds=rounds,
            freed=freed,
            finish=finish_on(device),
            measure_memory=partial(peak_memory, device=device) if memory else None,
            compare=prints,
            progress=progress,
        )
        machine = describe_machine()
    model = Path(model).name if Path(model).exists() else model  # a report tells of no folders
    settings: dict[str, Any] = {"model": model, "length": len(sequence), "rounds": rounds, "backend": backend}
    settings |= {"threads": machine.threads, "device": device.type, "quants": [recipe.name for recipe in recipes]}
    settings["freed memory"] = str(freed)
    facts = {"integers against simulation": {r.name: prints.between(r.name, _simulated(r)) for r in recipes}}
    section = Section(f"{model}, {len(sequence)} residues", standings, _BASELINES, facts)
    notes = [
        "x: how many times as fast, the median of ratios round by round (quartiles).",
        "deviation: CA-RMSD to the float32 prediction, in angstrom.",
    ]
    notes += notes_on_targets(network, [sequence], shipped=False)
    for name, found in facts["integers against simulation"].items():
        if found is not None:
            notes.append(
                "{}: integers are {rmsd:.4f} angstrom from their simulation, TM {tm:.4f}".format(name, **found)
            )
    return BenchReport("fold", settings, machine, [section], tuple(notes))


class _Folds:
    """CA traces by name of contender, and how far they are apart."""

    def __init__(self) -> None:
        self._traces: dict[str, Any] = {}

    def __call__(self, name: str, prediction: Prediction) -> float:
        self._traces[name] = ca_trace(prediction)
        return rmsd_ca(self._traces[name], next(iter(self._traces.values())))

    def between(self, name: str, other: str) -> dict[str, float] | None:
        """None where one of the two failed."""
        if name not in self._traces or other not in self._traces:
            return None
        one, two = self._traces[name], self._traces[other]
        return {"rmsd": rmsd_ca(one, two), "tm": tm_score(one, two).score}


def _fold(model: ESMFold, sequence: str, num_recycles: int | None) -> Prediction:
    return fold_within_memory(model, [sequence], ["protein"], num_recycles=num_recycles)[0]


def _simulated(recipe: Recipe) -> str:
    return f"{recipe.name} simulated"


def _of_recipe(
    recipe: Recipe, network: ESMFold, sequences: list[str], backend: str, job: Callable[[ESMFold], Prediction]
) -> list[Contender]:
    run = IntegerRun(backend)

    def simulate() -> Callable[[], Prediction]:
        return partial(job, quantize(network, recipe, sequences, execution="simulate")[0])

    def integers() -> Callable[[], Prediction]:
        return partial(job, run.convert(quantize(network, recipe, sequences, execution="simulate")[0]))

    return [
        Contender(_simulated(recipe), simulate, "quantize-dequantize in float32"),
        run.contender(recipe.name, integers),
    ]


def _first_sequence(fasta: Path | None) -> str:
    if fasta is None:
        with example_fasta() as path:
            return _first_sequence(path)
    records = read_fasta(fasta).records
    if not records:
        raise ProtquantError(f"{fasta}: no record that can be folded")
    return records[0].sequence
