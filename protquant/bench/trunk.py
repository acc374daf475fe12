"""`protquant bench trunk`: one block of the folding trunk, with random weights and the sizes of a released model."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from protquant.bench.baselines_trunk import TrunkWork, random_inputs, trunk_baseline
from protquant.bench.choices import TRUNK_BASELINES, TRUNK_PRESETS
from protquant.bench.contest import Contender, run_contest
from protquant.bench.deviation import Deviation
from protquant.bench.integer_runs import IntegerRun, check_backend, recorded_row
from protquant.bench.report import BenchReport, Section
from protquant.bench.setting import check_names, computing_with, finish_on
from protquant.errors import ProtquantError, suggestion
from protquant.integer.blocks import IntegerBlocks, may_record
from protquant.quant import Examples, Recipe, load_recipe, quantize
from protquant.reporting.machine import describe_machine
from protquant.running.peak_memory import peak_memory

__all__ = ["bench_trunk"]

_CALIBRATION_LENGTH = 48


def bench_trunk(
    preset: str = "esmfold_v1",
    length: int = 256,
    quants: Sequence[str | Path] = (),
    *,
    baselines: Sequence[str] = TRUNK_BASELINES,
    rounds: int = 5,
    threads: int | None = None,
    backend: str = "auto",
    keep_memory: bool = False,
    memory: bool = False,
    blocks: int = 1,
    chunk_size: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: bool | None = None,
) -> BenchReport:
    """Time a block against transformers' and against our float one.

    Parameters
    ----------
    preset : str
        One of `TRUNK_PRESETS`.
    length : int
        Residues.
    quants : sequence of str or Path
        Recipes whose integer execution is timed.
    baselines : sequence of str
        Of `TRUNK_BASELINES`.
    threads : int, optional
        That torch computes with; by default as many as now.
    backend : str
        Of the integer kernels.
    keep_memory : bool
        Whether freed memory is kept, see `FreedMemory`.
    memory : bool
        Whether to measure the peak of activations too.
    blocks : int
        How many blocks, each with weights of its own, one after the other.
    chunk_size : int, optional
        Rows of triangle attention at a time, for the float models; integers choose their own.

    Returns
    -------
    BenchReport
        The deviation is that of the pair's update from the first contender's.

    Raises
    ------
    ProtquantError
        For names that are not known, or numbers that make no sense.
    """
    if preset not in TRUNK_PRESETS:
        raise ProtquantError(f"--preset {preset}: no such preset of a trunk; {suggestion(preset, TRUNK_PRESETS)}")
    if length < 1:
        raise ProtquantError(f"a protein of {length} residues cannot be folded; give a length of 1 or more")
    check_names("--baseline", baselines, TRUNK_BASELINES)
    check_backend(backend)
    recipes = [load_recipe(quant) for quant in quants]
    device = torch.device(device)
    with computing_with(threads, keep_memory) as freed:
        work = TrunkWork.random(
            TRUNK_PRESETS[preset], length, blocks=blocks, chunk_size=chunk_size, seed=seed, device=device
        )
        contenders = [trunk_baseline(name, work) for name in dict.fromkeys(baselines)]
        for recipe in recipes:
            contenders += _integer(recipe, work, backend, seed)
        if not contenders:
            raise ProtquantError("nothing to run: name a --quant or a --baseline")
        deviation = Deviation(lambda result: result[1], work.pair)
        standings = run_contest(
            contenders,
            list(dict.fromkeys(baselines)),
            rounds=rounds,
            warmups=2,  # the second is recorded, where anything is
            freed=freed,
            finish=finish_on(device),
            measure_memory=partial(peak_memory, device=device) if memory else None,
            compare=deviation,
            progress=progress,
        )
        machine = describe_machine()
    settings = {"preset": preset, "length": length, "blocks": blocks, "chunk_size": chunk_size}
    settings |= {"rounds": rounds, "threads": machine.threads, "backend": backend}
    settings |= {"device": device.type, "seed": seed, "quants": [recipe.name for recipe in recipes]}
    settings["freed memory"] = str(freed)
    many = "one block" if blocks == 1 else f"{blocks} blocks"
    title = f"{many} of the trunk of {preset}, {length} residues, random weights"
    section = Section(title, standings, tuple(dict.fromkeys(baselines)), {"deviation from": deviation.reference})
    return BenchReport("trunk", settings, machine, [section], _notes(deviation.reference))


def _notes(reference: str | None) -> tuple[str, ...]:
    notes = ["x: how many times as fast, the median of ratios round by round (quartiles)."]
    if reference is not None:
        notes.append(f"deviation: of the update of the pair, relative to that of {reference}.")
    return tuple(notes)


def _integer(recipe: Recipe, work: TrunkWork, backend: str, seed: int) -> list[Contender]:
    """The blocks on integers; on a GPU also recorded, as they are in all passes but the first of a recycled protein."""
    integers = IntegerRun(backend)

    @cache
    def blocks() -> IntegerBlocks:
        # Ranges of another protein than the one that is timed.
        length = min(_CALIBRATION_LENGTH, work.single.shape[1])
        inputs = random_inputs(work.config, length, seed=seed, protein=1, device=work.single.device)
        quantized, _ = quantize(
            work.blocks, recipe, examples=Examples((inputs,), lambda block, given: block(*given), length=_residues)
        )
        running = integers.convert(quantized)
        assert isinstance(running, IntegerBlocks)
        return running

    def build(running: IntegerBlocks) -> Callable[[], Any]:
        return work.run(running, torch.float32)

    contenders = [integers.contender(recipe.name, lambda: build(blocks().again(records=False)))]
    if may_record(work.pair):
        contenders.append(recorded_row(recipe.name, lambda: blocks().again(records=True), build))
    return contenders


def _residues(inputs: tuple[torch.Tensor, ...]) -> int:
    return inputs[0].shape[1]
