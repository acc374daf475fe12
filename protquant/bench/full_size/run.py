"""`protquant bench full-size`: quantize, fold within memory limits, and time folding beside transformers."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from protquant.bench.choices import FULL_SIZE_PARTS, check_names
from protquant.bench.full_size.plan import (
    FLOAT_CANDIDATES,
    FULL_SIZE,
    Fold,
    Plan,
    Preparation,
    Work,
    check_float_checkpoint,
)
from protquant.bench.full_size.report import FullSizeReport, Turns
from protquant.bench.full_size.stage import Stage, StageRecord, kept_record, run_stage
from protquant.bench.worker_process import count_threads
from protquant.checkpoints import is_quantized
from protquant.errors import ProtquantError
from protquant.files import prepare_folder
from protquant.predicting.folding import check_folding_options
from protquant.reporting.machine import describe_machine
from protquant.running.devices import pick_device

__all__ = ["bench_full_size"]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def bench_full_size(
    checkpoint: Path,
    folder: Path,
    plan: Plan = FULL_SIZE,
    *,
    parts: Sequence[str] = FULL_SIZE_PARTS,
    rounds: int = 3,
    threads: int | None = None,
    num_recycles: int = 0,
    seed: int = 0,
    again: Sequence[str] = (),
    calibration: Path | None = None,
    cpu_only: bool = False,
    say: Callable[[str], None] = _say,
) -> FullSizeReport:
    """Measure time and memory to quantize a checkpoint, to load it and to fold with it, each in a process of its own.

    A stage is skipped if `folder` has its result with the same settings. Stages that failed are repeated.

    Parameters
    ----------
    checkpoint : Path
        Float ESMFold in the layout of transformers, such as `make_checkpoint` writes.
    folder : Path
        Folder for quantized checkpoints, results and logs.
    plan : Plan
        Recipes, lengths and limits.
    parts : sequence of str
        Names in `FULL_SIZE_PARTS`.
    rounds : int
        Number of timed stages of each candidate. Every other round reverses their order.
    threads : int, optional
        Number of threads of all programs; by default torch's.
    num_recycles : int
        Number of recycles of each protein.
    seed : int
        Seed of the sequences.
    again : sequence of str
        Names of stages, or how they begin, to repeat although they have results; `all` repeats every stage.
    calibration : Path, optional
        FASTA file to calibrate on; by default the 12 shipped proteins.
    cpu_only : bool
        Whether to leave a GPU unused.
    say : callable
        Called with a line of text for each step.

    Returns
    -------
    FullSizeReport

    Raises
    ------
    ProtquantError
        If the checkpoint or an option cannot be used. Failed stages are rows of the report.
    """
    check_names("--part", parts, FULL_SIZE_PARTS)
    check_folding_options(num_recycles, None)
    check_float_checkpoint(checkpoint)
    if rounds < 1:
        raise ProtquantError(f"--rounds {rounds}: give 1 or more")
    prepare_folder(folder)
    threads, device = count_threads(threads), pick_device(cpu_only).type
    work = Work(checkpoint, folder, threads, num_recycles, seed, calibration, device)
    bench = _Bench(work, plan, tuple(parts), tuple(again), say)
    bench.quantize()
    bench.fold()
    bench.take_turns(rounds)
    machine = replace(describe_machine(), threads=threads)
    settings = {"checkpoint": checkpoint.name, "parts": list(parts), "rounds": rounds, "threads": threads}
    settings |= {"device": device, "num_recycles": num_recycles, "seed": seed}
    settings |= {"calibration": None if calibration is None else calibration.name}
    return FullSizeReport(
        settings, machine, plan, bench.preparations, bench.folds, list(bench.turns.values()), tuple(bench.skipped)
    )


class _Bench:
    """Runs the stages of a plan in order, and collects their results."""

    def __init__(
        self, work: Work, plan: Plan, parts: tuple[str, ...], again: tuple[str, ...], say: Callable[[str], None]
    ) -> None:
        self.work, self.plan, self.parts, self.again, self.say = work, plan, parts, again, say
        self.preparations: list[tuple[Preparation, StageRecord]] = []
        self.folds: list[tuple[Fold, StageRecord]] = []
        self.turns: dict[str, Turns] = {}
        self.skipped: list[str] = []

    def quantize(self) -> None:
        for asked in self.plan.preparations:
            stage, output = self.work.preparation(asked), self.work.quantized(asked.recipe)
            # The whole work is timed: delete statistics of other recipes, and blocks of an interrupted run.
            for spared in (self.work.statistics, output.with_name(f"{output.name}.partial")):
                shutil.rmtree(spared, ignore_errors=True)
            record = self._do("quantize", stage, stands=output.is_dir())
            shutil.rmtree(self.work.statistics, ignore_errors=True)
            if record is not None:
                self.preparations.append((asked, record))

    def fold(self) -> None:
        for asked in self.plan.folds:
            what = f"fold {asked.residues} residues by {asked.recipe}"
            if self._has_checkpoint(asked.recipe, what):
                record = self._do("fold", self.work.fold(asked))
                if record is not None:
                    self.folds.append((asked, record))

    def take_turns(self, rounds: int) -> None:
        taking = [name for name in self.plan.contenders if self._has_checkpoint(name, f"turns of {name}")]
        records: dict[str, list[StageRecord]] = {name: [] for name in taking}
        for number in range(1, rounds + 1):
            # Every other round reverses the order, so that no candidate always follows the same one.
            for name in taking if number % 2 else reversed(taking):
                record = self._do("turns", self.work.turn(name, self.plan.lengths, number))
                if record is not None:
                    records[name].append(record)
        self.turns = {name: Turns(name, each) for name, each in records.items() if each}

    def _has_checkpoint(self, name: str, what: str) -> bool:
        if name in FLOAT_CANDIDATES:
            return True
        if any(asked.recipe == name and not record.problem for asked, record in self.preparations):
            return True
        stands = is_quantized(self.work.quantized(name))
        if not stands:
            self.skipped.append(f"NOT RUN: {what}: there is no checkpoint quantized by {name}")
        return stands

    def _do(self, part: str, stage: Stage, *, stands: bool = True) -> StageRecord | None:
        """Return the stored result of a stage, or run it; None if its part was not requested."""
        wanted = any(each == "all" or stage.name.startswith(each) for each in self.again)
        if stands and not (wanted and part in self.parts):
            kept = kept_record(stage, self.work.records)
            if kept is not None:
                self.say(f"{stage.name}: stands from {kept.machine['date']}")
                return kept
        if part not in self.parts:
            self.skipped.append(f"NOT RUN: {stage.name}: part {part} was not asked for, and no result stands")
            return None
        return run_stage(stage, self.work.records, self.say)
