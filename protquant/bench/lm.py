"""`protquant bench lm`: ESM-2 with random weights and the sizes of a released model, on batches of proteins."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from protquant.bench import esm_cpp_script
from protquant.bench.baselines_lm import lm_baseline, random_esm2, run_logits
from protquant.bench.choices import (
    LM_BASELINES,
    LM_PRESETS,
    WORKLOADS,
    Workload,
    check_backend,
    check_names,
)
from protquant.bench.esm_cpp import esm_cpp_arguments
from protquant.bench.integer_run import integer_run, named_recipes, recorded_run
from protquant.bench.options import LmOptions
from protquant.bench.paired_benchmark import Candidate, compared_with, paired_benchmark
from protquant.bench.report import RATIO_NOTE, BenchReport, Section
from protquant.bench.worker import Run
from protquant.bench.worker_process import count_threads
from protquant.bench.workloads import LanguageWork, language_work
from protquant.errors import ProtquantError, suggestion
from protquant.integer.language_model import IntegerESM2, may_record
from protquant.integer.packed_sequences import PackedSequences
from protquant.integer.recording import can_record
from protquant.options import takes
from protquant.preparing.quantize import quantize
from protquant.quant import load_recipe
from protquant.reporting.machine import describe_machine
from protquant.running.execution import Execution

__all__ = ["bench_lm"]

_CALIBRATION_SEQUENCES = 4


@takes(LmOptions)
def bench_lm(options: LmOptions) -> BenchReport:
    """Time the logits of ESM-2 beside transformers and other implementations.

    Returns
    -------
    BenchReport
        A section for each workload. The deviation is the relative difference of the logits of real tokens from those of
        the first candidate.

    Raises
    ------
    ProtquantError
        If a name is not known, or a number is out of range.
    """
    if options.preset not in LM_PRESETS:
        raise ProtquantError(
            f"--preset {options.preset}: no such preset of a language model; {suggestion(options.preset, LM_PRESETS)}"
        )
    check_names("--workload", options.workloads, list(WORKLOADS))
    check_names("--baseline", options.baselines, list(LM_BASELINES))
    check_backend(options.backend)
    threads = count_threads(options.threads)
    recipes = named_recipes(options.quants)
    if not recipes and not options.baselines:
        raise ProtquantError("nothing to run: name a --quant or a --baseline")
    compared, device = list(dict.fromkeys(options.baselines)), torch.device(options.device)
    sections = []
    for workload in dict.fromkeys(options.workloads):
        work = language_work(workload, seed=options.seed, device=device)
        given: dict[str, Any] = {
            "preset": options.preset,
            "workload": workload,
            "seed": options.seed,
            "device": str(device),
        }
        candidates = [_baseline(name, given, options.esm_cpp_python) for name in compared]
        for name, recipe in recipes.items():
            candidates += _on_integers(name, {"recipe": recipe, "backend": options.backend, **given}, work)
        results = paired_benchmark(
            candidates,
            compared,
            rounds=options.rounds,
            warmups=2 if can_record(device) else 1,  # the second run is recorded
            threads=threads,
            device=device.type,
            memory=options.memory,
            progress=options.progress,
        )
        facts = {**work.facts(), "deviation from": compared_with(results)}
        title = f"{options.preset}, {WORKLOADS[workload]}, random weights"
        sections.append(Section(title, results, tuple(compared), facts))
    settings: dict[str, Any] = {
        "preset": options.preset,
        "workloads": list(options.workloads),
        "rounds": options.rounds,
    }
    settings |= {
        "threads": threads,
        "backend": options.backend,
        "device": device.type,
        "seed": options.seed,
        "quants": list(recipes),
    }
    notes = (
        RATIO_NOTE,
        f"deviation: of logits of real tokens, relative to those of {sections[0].facts['deviation from']}.",
    )
    return BenchReport("lm", settings, replace(describe_machine(), threads=threads), sections, notes)


def _baseline(name: str, given: dict[str, Any], esm_cpp_python: str | None) -> Candidate:
    if name == "esm-cpp-w8a8":
        python = esm_cpp_python or sys.executable
        return Candidate(name, esm_cpp_script.build, partial(esm_cpp_arguments, **given), LM_BASELINES[name], python)
    return Candidate(name, float_logits, {"name": name, **given}, LM_BASELINES[name])


def _on_integers(name: str, arguments: dict[str, Any], work: LanguageWork) -> Iterator[Candidate]:
    """Yield the model on integers; on a GPU also a recorded one, as for batches with tokens in the same places."""
    yield Candidate(name, integer_logits, {**arguments, "records": False})
    if may_record(PackedSequences(work.valid)):
        yield Candidate(f"{name}, recorded", integer_logits, {**arguments, "records": True})


def float_logits(name: str, preset: str, workload: Workload, seed: int, device: str) -> Run:
    """Return a worker's run of one of `LM_BASELINES`."""
    work = language_work(workload, seed=seed, device=device)
    return Run(lm_baseline(name, random_esm2(LM_PRESETS[preset], seed).to(device), work), _real_logits(work))


def integer_logits(
    recipe: str, backend: str, records: bool, preset: str, workload: Workload, seed: int, device: str
) -> Run:
    """Return a worker's run of ESM-2 on integers."""
    parsed = load_recipe(recipe)
    execution = Execution(parsed, "integer", backend, torch.device(device))
    work, model = language_work(workload, seed=seed, device=device), random_esm2(LM_PRESETS[preset], seed).to(device)
    # Calibrate on other sequences than the timed ones.
    sequences = language_work("ragged", seed=seed + 1).sequences[:_CALIBRATION_SEQUENCES]
    quantized, _ = quantize(model, parsed, sequences, execution="simulate", cache=False, inplace=True)
    converted = execution.convert(quantized)
    assert isinstance(converted, IntegerESM2)
    running = converted.with_recorder(records=records)
    run, read = run_logits(running, work), _real_logits(work)
    return recorded_run(running, run, read) if records else integer_run(execution, run, read)


def _real_logits(work: LanguageWork) -> Callable[[Any], np.ndarray]:
    """Return a function that returns the logits of tokens that are not padding."""
    return lambda logits: logits[work.valid].float().cpu().numpy()
