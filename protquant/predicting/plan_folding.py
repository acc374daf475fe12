"""Plan the folding of a FASTA file before anything is loaded: memory, chunks, time and order."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from protquant.errors import ProtquantError
from protquant.options import PlanOptions, takes
from protquant.predicting.folding import check_folding_options
from protquant.preparing.quantize_checkpoint import choose_recipe
from protquant.preparing.time_estimate import TimeEstimate, measure_times
from protquant.proteins import Record, read_fasta
from protquant.quant import Recipe, load_recipe
from protquant.running.batches import length_batches, model_length
from protquant.running.devices import parse_dtype, pick_device
from protquant.running.execution import Execution, wants_integers
from protquant.running.memory import MemoryBudget, MemoryPlan, folding_skeleton, memory_budget, parse_bytes

__all__ = ["FoldingPlan", "plan_folding"]

_COMPARED = ("fp32", "w8a8-int8", "w4a8-int4")
_FOLD_HAS_MORE = 32 * 2**20
"""Allowance for modules that the folding process has loaded and this one has not; we measured 15 MiB."""


@dataclass(frozen=True)
class FoldingPlan:
    """Plan of folding a FASTA file.

    Attributes
    ----------
    settings : dict
        Settings of the run.
    targets : list of dict
        One row per record, in the order of folding: `order name length batch chunk_size peak_bytes pair_tensors step
        seconds problem`. `batch` is the number of records that are folded together, padded to the longest; `problem` is
        the reason why a record cannot be folded, or empty.
    machine : list of dict
        One row per recipe: `recipe execution resident_bytes available_bytes longest_length`. These are the memory of
        the process with the loaded model, the memory for activations, and the longest sequence that fits by itself (0
        if the model does not fit).
    notes : list of str
    """

    settings: dict[str, Any]
    targets: list[dict[str, Any]]
    machine: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Seconds of all targets that can be folded; None without a measurement."""
        known = [row["seconds"] for row in self.targets if row["seconds"] is not None]
        return sum(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {**asdict(self), "seconds": self.seconds}


@takes(PlanOptions)
def plan_folding(options: PlanOptions) -> FoldingPlan:
    """Plan `fold_fasta` with the same arguments, without loading or downloading weights.

    Raises
    ------
    ProtquantError
        If the input, the model or the recipe cannot be used, or the model does not fold.
    """
    check_folding_options(options.num_recycles, options.chunk_size)
    limit = None if options.max_memory is None else parse_bytes(options.max_memory)
    device, float_type = pick_device(options.cpu_only), parse_dtype(options.dtype)
    recipe, saved = choose_recipe(options.model, options.quant)
    compare = options.compare
    if compare is None:
        compare = () if saved else _COMPARED
    compare = [name for name in compare if name not in (options.quant, "none")]
    if saved is not None and compare:
        raise ProtquantError(
            f"{options.model} is quantized already, so other recipes cannot be planned; name the float model"
        )
    network = folding_skeleton(options.model)
    records = None if options.fasta is None else read_fasta(options.fasta)
    running = Execution(recipe, options.execution, options.backend, device)

    def room(each: Recipe, runs: Execution) -> MemoryBudget:
        budget = memory_budget(network, each, runs, device=device, dtype=float_type, max_memory=limit)
        more = 0 if device.type == "cuda" else _FOLD_HAS_MORE
        return replace(budget, resident=budget.resident + more, loading=budget.loading + more)

    budget = room(recipe, running)
    machine, notes = [_longest(recipe, running, budget, options.chunk_size)], []
    for each in map(load_recipe, compare):
        try:
            other = _alike(each, options.execution, options.backend, device)
            machine.append(_longest(each, other, room(each, other), options.chunk_size))
        except ProtquantError as error:
            notes.append(f"{each.name}: not planned: {error}")
    passes = 1 + (network.config.trunk.max_recycles - 1 if options.num_recycles is None else options.num_recycles)
    times = None
    if options.measure and records and budget.available > 0:  # Last, because measuring leaves memory allocated.
        times = measure_times(network.config, recipe, running, device, float_type)
    targets = []
    if records is not None:
        notes += [f"{records.path}, line {bad.line}: {bad.header!r}: {bad.reason}" for bad in records.rejected]
        targets = _targets(records.records, budget, times, passes, options.max_tokens_per_batch, options.chunk_size)
    return FoldingPlan(
        {
            "fasta": None if options.fasta is None else str(options.fasta),
            "model": options.model,
            "recipe": recipe.name,
            **running.settings(),
            "num_recycles": passes - 1,
            "dtype": options.dtype,
            "max_memory": limit,
            "device": str(device),
            "threads": torch.get_num_threads(),
        },
        targets,
        machine,
        notes,
    )


def _alike(recipe: Recipe, execution: str | None, backend: str, device: torch.device) -> Execution:
    """Return the execution of another recipe for the same options."""
    execution = None if recipe.is_float else execution
    return Execution(recipe, execution, backend if wants_integers(recipe, execution) else "auto", device)


def _longest(recipe: Recipe, running: Execution, budget: MemoryBudget, chunk_size: int | None) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "execution": budget.setup.execution,
        "kernels": running.settings()["kernels"],
        "resident_bytes": budget.resident,
        "available_bytes": budget.available,
        "longest_length": budget.longest(chunk_size),
    }


def _targets(
    records: Sequence[Record],
    budget: MemoryBudget,
    times: TimeEstimate | None,
    passes: int,
    max_tokens: int,
    chunk_size: int | None,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for indices in length_batches([record.sequence for record in records], max_tokens):
        batch = [records[index] for index in indices]
        plan = _plan(budget, batch, chunk_size)
        # Records that do not fit together are folded one by one.
        groups = [batch] if isinstance(plan, MemoryPlan) or len(batch) == 1 else [[record] for record in batch]
        for group in groups:
            planned = plan if group is batch else _plan(budget, group, chunk_size)
            rows += [
                _row(len(rows) + k, record, len(group), planned, times, passes) for k, record in enumerate(group, 1)
            ]
    return rows


def _plan(budget: MemoryBudget, batch: Sequence[Record], chunk_size: int | None) -> MemoryPlan | str:
    """Return the memory plan of a batch, or the reason why it does not fit."""
    try:
        return budget.plan(max(model_length(record.sequence) for record in batch), len(batch), chunk_size)
    except ProtquantError as error:
        return str(error)


def _row(
    order: int, record: Record, batch: int, plan: MemoryPlan | str, times: TimeEstimate | None, passes: int
) -> dict[str, Any]:
    row = {"order": order, "name": record.name, "length": model_length(record.sequence), "batch": batch}
    if isinstance(plan, str):
        return row | dict.fromkeys(["chunk_size", "peak_bytes", "pair_tensors", "step", "seconds"]) | {"problem": plan}
    return row | {
        "chunk_size": plan.chunk_size,
        "peak_bytes": plan.total,
        "pair_tensors": plan.pairs,
        "step": plan.step,
        "seconds": None if times is None else times.seconds(plan.length, passes),
        "problem": "",
    }
