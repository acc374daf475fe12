"""`protquant bench memory`: compare the planned peak with the peak of the whole process that folds."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from protquant.bench.full_size.plan import Work, check_float_checkpoint, identity
from protquant.bench.full_size.stage import Stage, StageRecord, kept_record, run_stage
from protquant.bench.worker_process import allocator_variables, count_threads, environment_of
from protquant.errors import ProtquantError
from protquant.files import atomic_write, json_value, prepare_folder
from protquant.reporting.machine import Machine, describe_machine
from protquant.running.devices import pick_device

__all__ = ["COMBINATIONS", "COMBINATIONS_ON_GPU", "Combination", "MemoryPromise", "PromiseReport", "bench_memory"]

_GIB = 2**30
_FLOAT = "fp32"
_MOST_ABOVE, _MOST_BELOW = 0.15, 0.05


@dataclass(frozen=True)
class Combination:
    """A protein that one process folds.

    Attributes
    ----------
    recipe : str
        Recipe of a quantized checkpoint in the work folder; `fp32` is the float checkpoint.
    execution : str
        `integer`, `simulate`, or `float`.
    chunk_size : int or None
        Rows of float blocks at a time; with None the plan chooses.
    """

    recipe: str
    execution: str
    residues: int
    chunk_size: int | None = None

    @property
    def name(self) -> str:
        chunks = "" if self.chunk_size is None else f", chunks of {self.chunk_size}"
        return f"{self.residues} residues, {self.recipe}, {self.execution}{chunks}"


COMBINATIONS = (
    *(Combination("w8a8-int8", "integer", residues) for residues in (64, 128, 256, 512)),
    *(Combination("w4a8-int4", "integer", residues) for residues in (64, 256, 512)),
    Combination("w8a8-int8", "simulate", 128),
    Combination("w8a8-int8", "simulate", 256, 16),
    Combination(_FLOAT, "float", 64),
    Combination(_FLOAT, "float", 128, 32),
    Combination(_FLOAT, "float", 256),
)
"""Lengths, recipes and chunk sizes for which plan and peak are compared."""

COMBINATIONS_ON_GPU = (
    *(Combination("w8a8-int8", "integer", residues) for residues in (128, 256, 512, 1024)),
    *(Combination("w4a8-int4", "integer", residues) for residues in (256, 1024)),
    Combination("w8a8-int8", "simulate", 256),
    *(Combination(_FLOAT, "float", residues) for residues in (128, 256, 512)),
    Combination(_FLOAT, "float", 512, 32),
)
"""The combinations for a GPU."""


@dataclass(frozen=True)
class MemoryPromise:
    """The plan of a combination, and the measurement.

    Attributes
    ----------
    planned : dict or None
        The target in the output of `protquant plan`; None if that failed.
    record : StageRecord
        Record of the process that folded with the planned peak as `--max-memory`.
    """

    combination: Combination
    planned: dict[str, Any] | None
    record: StageRecord

    @property
    def measured(self) -> int | None:
        """Peak of resident memory, or of tensors on a GPU, in bytes; None if it was not measured."""
        if self.record.outcome is None or self.record.result is None:
            return None
        return self.record.result["gpu_peak_bytes"] or self.record.outcome.resident_peak

    @property
    def ratio(self) -> float | None:
        """Planned peak divided by the measured peak."""
        return self.planned["peak_bytes"] / self.measured if self.planned and self.measured else None

    def row(self) -> dict[str, Any]:
        """Return a row for tables."""
        planned, ratio = self.planned, self.ratio
        return {
            "recipe": self.combination.recipe,
            "execution": self.combination.execution,
            "residues": str(self.combination.residues),
            "chunk": str(self.combination.chunk_size or "-"),
            "planned GiB": planned["peak_bytes"] / _GIB if planned else None,
            "measured GiB": self.measured / _GIB if self.measured else None,
            "planned / measured": ratio,
            "kept": "-" if ratio is None else "yes" if ratio >= 1 else "NO",
            "pair tensors": planned["pair_tensors"] if planned else None,
            "peak in": planned["step"] if planned else "-",
            "notes": self.record.problem or "",
        }


@dataclass(frozen=True)
class PromiseReport:
    """The results of all combinations."""

    settings: dict[str, Any]
    machine: Machine
    promises: Sequence[MemoryPromise]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each combination."""
        return [promise.row() for promise in self.promises]

    @property
    def failed(self) -> list[MemoryPromise]:
        """Combinations without a result."""
        return [promise for promise in self.promises if promise.ratio is None]

    def notes(self) -> list[str]:
        """Return lines to print below the table."""
        ratios = [promise.ratio for promise in self.promises if promise.ratio is not None]
        if not ratios:
            return ["nothing was measured"]
        good = [ratio for ratio in ratios if 1 - _MOST_BELOW <= ratio <= 1 + _MOST_ABOVE]
        number, kept = len(self.promises), sum(ratio >= 1 for ratio in ratios)
        within = f"at most {_MOST_ABOVE:.0%} above and {_MOST_BELOW:.0%} below"
        return [
            f"planned / measured: {min(ratios):.3f} to {max(ratios):.3f}; {len(good)} of {number} are {within}",
            f"{kept} of {number} stayed within the planned peak, which was their --max-memory",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "benchmark": "memory",
            "settings": {**self.settings, "allocator": allocator_variables()},
            "machine": self.machine.to_dict(),
            "notes": self.notes(),
            "rows": self.rows(),
            "combinations": [
                {
                    **asdict(promise.combination),
                    "planned": promise.planned,
                    "outcome": None if promise.record.outcome is None else promise.record.outcome.to_dict(),
                    "revision": promise.record.machine["revision"],
                }
                for promise in self.promises
            ],
        }

    def write(self, path: Path) -> Path:
        """Write the report as JSON; the file appears complete or not at all."""
        return atomic_write(path, json.dumps(json_value(self.to_dict()), indent=1) + "\n")


def bench_memory(
    checkpoint: Path,
    folder: Path,
    combinations: Sequence[Combination] = COMBINATIONS,
    *,
    threads: int | None = None,
    num_recycles: int = 1,
    seed: int = 0,
    again: bool = False,
    cpu_only: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> PromiseReport:
    """Run `protquant plan` and `protquant fold` on one random protein for each combination, in separate processes.

    `protquant fold` loads the model, folds, and draws the picture; `--max-memory` is the planned peak.

    Parameters
    ----------
    checkpoint : Path
        Float ESMFold in the layout of transformers.
    folder : Path
        Folder of `bench full-size`, with the quantized checkpoints.
    again : bool
        Whether to repeat runs whose results are in `folder`.
    cpu_only : bool
        Whether to leave a GPU unused.
    say : callable
        Called with a line of text for each step.

    Raises
    ------
    ProtquantError
        If a checkpoint is missing.
    """
    check_float_checkpoint(checkpoint)
    threads, device = count_threads(threads), pick_device(cpu_only).type
    work = Work(checkpoint, folder, threads, num_recycles, seed, device=device)
    for each in combinations:
        if each.recipe != _FLOAT and not work.quantized(each.recipe).is_dir():
            raise ProtquantError(
                f"{work.quantized(each.recipe)}: no such checkpoint; make it with `protquant bench full-size"
                f" {checkpoint} --work {folder} --part quantize -q {each.recipe}`"
            )
    prepare_folder(folder / "memory")
    promises = [_keep(work, each, again, say) for each in combinations]
    settings = {"checkpoint": checkpoint.name, "threads": threads, "device": device, "num_recycles": num_recycles}
    return PromiseReport({**settings, "seed": seed}, replace(describe_machine(), threads=threads), promises)


def _keep(work: Work, asked: Combination, again: bool, say: Callable[[str], None]) -> MemoryPromise:
    plan = _run(work, asked, "plan", ["--no-measure", "--compare", "none"], None, True, say)
    planned = None if plan.result is None else plan.result["targets"][0]
    if planned is None:
        return MemoryPromise(asked, None, plan)
    output = work.folder / "memory" / "predictions"
    options = ["-o", str(output), "--overwrite", "--max-memory", str(planned["peak_bytes"])]
    return MemoryPromise(asked, planned, _run(work, asked, "fold", options, planned["peak_bytes"], again, say))


def _run(
    work: Work,
    asked: Combination,
    verb: str,
    options: list[str],
    planned: int | None,
    again: bool,
    say: Callable[[str], None],
) -> StageRecord:
    fasta = work.folder / "memory" / f"{asked.residues}.fasta"
    atomic_write(fasta, f">random_{asked.residues}\n{work.sequence(asked.residues)}\n")
    model = work.checkpoint if asked.recipe == _FLOAT else work.quantized(asked.recipe)
    command = [
        sys.executable,
        "-m",
        "protquant",
        verb,
        "-i",
        str(fasta),
        "-m",
        str(model),
        "--json",
        *work.device_options,
    ]
    command += ["--num-recycles", str(work.num_recycles), *options]
    if asked.execution != "float":
        command += ["--execution", asked.execution]
    if asked.chunk_size is not None:
        command += ["--chunk-size", str(asked.chunk_size)]
    settings = {
        **asdict(asked),
        "model": identity(model),
        "threads": work.threads,
        "device": work.device,
        "num_recycles": work.num_recycles,
        "allocator": allocator_variables(),
        "planned": planned,
        "seed": work.seed,
    }
    stage = Stage(f"memory, {verb} {asked.name}", command, settings, environment=environment_of(work.threads))
    kept = None if again else kept_record(stage, work.records)
    return kept or run_stage(stage, work.records, say)
