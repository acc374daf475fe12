"""`protquant bench lm`: ESM-2 with random weights and the sizes of a released model, on batches of proteins."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from protquant.bench.baselines_lm import lm_baseline, run_logits
from protquant.bench.choices import DEFAULT_LM_BASELINES, LM_BASELINES, LM_PRESETS, WORKLOADS, Workload
from protquant.bench.contest import Contender, run_contest
from protquant.bench.deviation import Deviation
from protquant.bench.integer_runs import IntegerRun, check_backend, recorded_row
from protquant.bench.report import BenchReport, Section
from protquant.bench.setting import check_names, computing_with, finish_on
from protquant.bench.workloads import LanguageWork, language_work
from protquant.errors import ProtquantError, suggestion
from protquant.integer.language_model import IntegerESM2, may_record
from protquant.integer.packed_sequences import PackedSequences
from protquant.integer.recording import can_record
from protquant.models import ESM2, ESM2Config
from protquant.preparing.quantize import quantize
from protquant.quant import Recipe, load_recipe
from protquant.reporting.machine import describe_machine
from protquant.running.peak_memory import PeakMemory, peak_memory
from protquant.running.random_weights import randomize

__all__ = ["bench_lm", "random_esm2"]

_CALIBRATION_SEQUENCES = 4


def bench_lm(
    preset: str = "esm2_t33_650M",
    workloads: Sequence[Workload] = ("uniform", "ragged"),
    quants: Sequence[str | Path] = (),
    *,
    baselines: Sequence[str] = DEFAULT_LM_BASELINES,
    rounds: int = 5,
    threads: int | None = None,
    backend: str = "auto",
    keep_memory: bool = False,
    memory: bool = False,
    device: torch.device | str = "cpu",
    esm_cpp_python: str | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> BenchReport:
    """Time the logits of ESM-2 against transformers' and others'.

    Parameters
    ----------
    preset : str
        One of `LM_PRESETS`.
    workloads : sequence of str
        Of `WORKLOADS`.
    quants : sequence of str or Path
        Recipes whose integer execution is timed.
    baselines : sequence of str
        Of `LM_BASELINES`. One whose package is not installed is a row that says so.
    threads : int, optional
        That all compute with; by default as many as torch does now.
    backend : str
        Of the integer kernels.
    keep_memory : bool
        Whether freed memory is kept, see `FreedMemory`.
    memory : bool
        Whether to measure the peak of activations too; not that of another process.
    esm_cpp_python : str, optional
        The interpreter of an environment that has esm-cpp; by default this one.

    Returns
    -------
    BenchReport
        A section for each workload; the deviation is that of logits of real tokens from the first contender's.

    Raises
    ------
    ProtquantError
        For names that are not known, or numbers that make no sense.
    """
    if preset not in LM_PRESETS:
        raise ProtquantError(f"--preset {preset}: no such preset of a language model; {suggestion(preset, LM_PRESETS)}")
    check_names("--workload", workloads, list(WORKLOADS))
    check_names("--baseline", baselines, list(LM_BASELINES))
    check_backend(backend)
    recipes = [load_recipe(quant) for quant in quants]
    if not recipes and not baselines:
        raise ProtquantError("nothing to run: name a --quant or a --baseline")
    device, compared = torch.device(device), list(dict.fromkeys(baselines))
    sections = []
    with computing_with(threads, keep_memory) as freed:
        model = random_esm2(LM_PRESETS[preset], seed).to(device)
        prepared = [_Prepared(recipe, model, backend, seed) for recipe in recipes]
        for workload in dict.fromkeys(workloads):
            work = language_work(workload, seed=seed, device=device)
            contenders = [lm_baseline(name, model, work, esm_cpp_python) for name in compared]
            contenders += [contender for each in prepared for contender in each.contenders(work)]
            deviation = Deviation(partial(_real_logits, work))
            standings = run_contest(
                contenders,
                compared,
                rounds=rounds,
                warmups=2 if can_record(device) else 1,  # the second is recorded
                freed=freed,
                finish=finish_on(device),
                measure_memory=partial(_memory, device=device) if memory else None,
                compare=deviation,
                progress=progress,
            )
            facts = {**work.facts(), "deviation from": deviation.reference}
            title = f"{preset}, {WORKLOADS[workload]}, random weights"
            sections.append(Section(title, standings, tuple(compared), facts))
        machine = describe_machine()
    settings: dict[str, Any] = {"preset": preset, "workloads": list(workloads), "rounds": rounds}
    settings |= {"threads": machine.threads, "backend": backend, "device": device.type, "seed": seed}
    settings |= {"quants": [recipe.name for recipe in recipes], "freed memory": str(freed)}
    notes = (
        "x: how many times as fast, the median of ratios round by round (quartiles).",
        f"deviation: of logits of real tokens, relative to those of {sections[0].facts['deviation from']}.",
    )
    return BenchReport("lm", settings, machine, sections, notes)


def random_esm2(config: ESM2Config, seed: int = 0) -> ESM2:
    """ESM-2 in float32 with random weights, for timing."""
    with torch.device("meta"):
        model = ESM2(config)
    model = model.to_empty(device="cpu")  # rotary frequencies stay as they are
    randomize(model, seed)
    return model.eval().requires_grad_(False)


class _Prepared:
    """A model that is quantized once, for all workloads."""

    def __init__(self, recipe: Recipe, model: ESM2, backend: str, seed: int) -> None:
        self.recipe, self.model, self.seed = recipe, model, seed
        self._integers = IntegerRun(backend)

    @cached_property
    def _running(self) -> IntegerESM2:
        # Other sequences than those that are timed.
        sequences = language_work("ragged", seed=self.seed + 1).sequences[:_CALIBRATION_SEQUENCES]
        quantized, _ = quantize(self.model, self.recipe, sequences, execution="simulate", cache=False)
        running = self._integers.convert(quantized)
        assert isinstance(running, IntegerESM2)
        return running

    def contenders(self, work: LanguageWork) -> list[Contender]:
        """The model on integers; on a GPU also recorded, as with batches whose tokens lie in the same places."""
        launched = self._integers.contender(
            self.recipe.name, lambda: run_logits(self._running.again(records=False), work)
        )
        if not may_record(PackedSequences(work.valid)):
            return [launched]
        make, time = lambda: self._running.again(records=True), lambda model: run_logits(model, work)
        return [launched, recorded_row(self.recipe.name, make, time)]


def _real_logits(work: LanguageWork, result: Any) -> Tensor:
    logits = result if isinstance(result, Tensor) else result.logits()
    return logits[work.valid.to(logits.device)]


def _memory(run: Callable[[], Any], device: torch.device) -> PeakMemory:
    if not hasattr(run, "worker"):
        return peak_memory(run, device)
    return PeakMemory(None, "not measured: it runs in another process")
