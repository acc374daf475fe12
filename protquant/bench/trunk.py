"""`protquant bench trunk`: one block of the folding trunk, with random weights and the sizes of a released model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from protquant.bench.baselines_trunk import TrunkWork, random_inputs, trunk_baseline
from protquant.bench.choices import TRUNK_BASELINES, TRUNK_PRESETS, check_backend, check_names
from protquant.bench.integer_run import integer_run, named_recipes, recorded_run
from protquant.bench.options import TrunkOptions
from protquant.bench.paired_benchmark import Candidate, compared_with, paired_benchmark
from protquant.bench.report import RATIO_NOTE, BenchReport, Section
from protquant.bench.worker import Run
from protquant.bench.worker_process import count_threads
from protquant.errors import ProtquantError, suggestion
from protquant.integer.blocks import IntegerBlocks, may_record
from protquant.options import takes
from protquant.quant import Examples, load_recipe, quantize
from protquant.reporting.machine import describe_machine
from protquant.running.execution import Execution

__all__ = ["bench_trunk"]

_CALIBRATION_LENGTH = 48


@takes(TrunkOptions)
def bench_trunk(options: TrunkOptions) -> BenchReport:
    """Time a block on integers beside those of transformers and of our float model.

    Returns
    -------
    BenchReport
        The deviation is the relative difference of the pair's update from that of the first candidate.

    Raises
    ------
    ProtquantError
        If a name is not known, or a number is out of range.
    """
    if options.preset not in TRUNK_PRESETS:
        raise ProtquantError(
            f"--preset {options.preset}: no such preset of a trunk; {suggestion(options.preset, TRUNK_PRESETS)}"
        )
    if options.length < 1:
        raise ProtquantError(f"a protein of {options.length} residues cannot be folded; give a length of 1 or more")
    check_names("--baseline", options.baselines, TRUNK_BASELINES)
    check_backend(options.backend)
    threads = count_threads(options.threads)
    recipes = named_recipes(options.quants)
    compared, device = list(dict.fromkeys(options.baselines)), torch.device(options.device)
    work = {
        "preset": options.preset,
        "length": options.length,
        "blocks": options.blocks,
        "seed": options.seed,
        "device": str(device),
    }
    chunks = "without chunks" if options.chunk_size is None else f"in chunks of {options.chunk_size}"
    candidates = [
        Candidate(
            name,
            float_blocks,
            {"name": name, "chunk_size": options.chunk_size, **work},
            f"its own block, {chunks}" if name.startswith("transformers") else f"our float block, {chunks}",
        )
        for name in compared
    ]
    for name, recipe in recipes.items():
        candidates += _on_integers(name, {"recipe": recipe, "backend": options.backend, **work}, device, options.length)
    if not candidates:
        raise ProtquantError("nothing to run: name a --quant or a --baseline")
    results = paired_benchmark(
        candidates,
        compared,
        rounds=options.rounds,
        warmups=2,  # the second run is recorded, on a GPU
        threads=threads,
        device=device.type,
        memory=options.memory,
        progress=options.progress,
    )
    settings = {
        "preset": options.preset,
        "length": options.length,
        "blocks": options.blocks,
        "chunk_size": options.chunk_size,
    }
    settings |= {"rounds": options.rounds, "threads": threads, "backend": options.backend}
    settings |= {"device": device.type, "seed": options.seed, "quants": list(recipes)}
    many = "one block" if options.blocks == 1 else f"{options.blocks} blocks"
    title = f"{many} of the trunk of {options.preset}, {options.length} residues, random weights"
    reference = compared_with(results)
    section = Section(title, results, tuple(compared), {"deviation from": reference})
    notes = [RATIO_NOTE]
    if reference is not None:
        notes.append(f"deviation: of the update of the pair, relative to that of {reference}.")
    return BenchReport("trunk", settings, replace(describe_machine(), threads=threads), [section], tuple(notes))


def _on_integers(name: str, arguments: dict[str, Any], device: torch.device, length: int) -> Iterator[Candidate]:
    """Yield blocks on integers; on a GPU also recorded ones, as in all passes of a protein but the first."""
    yield Candidate(name, integer_blocks, {**arguments, "records": False})
    if may_record(torch.empty(1, length, length, 0, device=device)):
        yield Candidate(f"{name}, recorded", integer_blocks, {**arguments, "records": True})


def float_blocks(name: str, preset: str, **given: Any) -> Run:
    """Return a worker's run of one of `TRUNK_BASELINES`."""
    work = TrunkWork.random(TRUNK_PRESETS[preset], **given)
    return Run(trunk_baseline(name, work), _updates(work))


def integer_blocks(recipe: str, backend: str, records: bool, preset: str, seed: int, **given: Any) -> Run:
    """Return a worker's run of blocks on integers."""
    work = TrunkWork.random(TRUNK_PRESETS[preset], seed=seed, **given)
    parsed = load_recipe(recipe)
    execution = Execution(parsed, "integer", backend, work.pair.device)
    # Calibrate on another protein than the timed one.
    length = min(_CALIBRATION_LENGTH, work.single.shape[1])
    inputs = random_inputs(work.config, length, seed=seed, protein=1, device=work.single.device)
    examples = Examples((inputs,), lambda block, given: block(*given), length=lambda inputs: inputs[0].shape[1])
    converted = execution.convert(quantize(work.blocks, parsed, examples=examples)[0])
    assert isinstance(converted, IntegerBlocks)
    blocks = converted.with_recorder(records=records)
    run = work.run(blocks, torch.float32)
    return recorded_run(blocks, run, _updates(work)) if records else integer_run(execution, run, _updates(work))


def _updates(work: TrunkWork) -> Callable[[Any], np.ndarray]:
    """Return a function that returns the change of the pair."""
    return lambda result: (result[1].float() - work.pair).cpu().numpy()
