"""Estimate size, time and memory of quantizing a checkpoint one block at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.models import ESMFold, ESMFoldConfig, ProteinModel
from protquant.preparing.time_estimate import measure_times
from protquant.quant import Recipe, needs_sequences, plan
from protquant.quant import quantize as quantize_weights
from protquant.running.batches import model_length
from protquant.running.memory import MemoryBudget, available_bytes, format_bytes, resident_bytes
from protquant.running.memory.weights import weight_bytes
from protquant.topology import find_chains

__all__ = ["PreparationCost", "preparation_cost"]

_CPU, _FLOAT = torch.device("cpu"), Recipe(name="fp32")
_SECOND_MOMENTS = 4  # copies in steps that fit weights: gathered, damped, factored, inverted
_PASSES = 2  # through the trunk in calibration: one recycle
_SAMPLE = 1024  # rows and columns of the matrix that is rounded


@dataclass(frozen=True)
class PreparationCost:
    """Estimated cost of making a quantized checkpoint.

    Attributes
    ----------
    bytes : int
        Bytes of the quantized checkpoint.
    seconds : float
        Seconds without the work in `beside`.
    peak : int
        Peak memory of the whole process, in bytes.
    beside : tuple of str
        Work that takes additional time: steps, and calibration of language models.
    """

    bytes: int
    seconds: float
    peak: int
    beside: tuple[str, ...]

    def check(self, what: str, max_memory: int | None) -> None:
        """Raise an error if there is too little memory.

        Raises
        ------
        ProtquantError
            If the peak is above `max_memory`, or above the sum of this process's memory and the free memory.
        """
        available = resident_bytes(_CPU) + available_bytes(_CPU)
        allowed = available if max_memory is None else min(available, max_memory)
        if self.peak > allowed:
            raise ProtquantError(
                f"to prepare {what} takes about {format_bytes(self.peak)} of memory, and there are"
                f" {format_bytes(allowed)}; make it by `protquant quantize` on a machine with more, and copy the folder"
            )

    def __str__(self) -> str:
        work = f" and the time of {', '.join(self.beside)}" if self.beside else ""
        minutes = max(1, round(self.seconds / 60))
        return (
            f"{self.bytes / 1e9:.2f} GB, about {minutes} min{work}, and {format_bytes(self.peak)} of memory at the peak"
        )


def preparation_cost(
    skeleton: ProteinModel, recipe: Recipe, sequences: Sequence[str], device: torch.device = _CPU
) -> PreparationCost:
    """Estimate the cost of `stream_checkpoint`, from sizes and short measurements.

    Parameters
    ----------
    skeleton : ProteinModel
        The float model, on the meta device.
    sequences : sequence of str
        Sequences to calibrate on, if the recipe needs them.
    device : torch.device
        Device that runs and quantizes blocks, for the time. The memory is always that of a run on the CPU.
    """
    resident = resident_bytes(_CPU)  # Before any measurement, because measurements leave memory allocated.
    bytes_on_disk = weight_bytes(skeleton, recipe, "integer")
    weights = [
        skeleton.get_parameter(f"{assignment.site.module}.weight")
        for assignment in plan(skeleton, recipe)
        if assignment.site.kind == "linear_weight" and assignment.format is not None
    ]
    coded, widest = sum(weight.numel() for weight in weights), max((w.shape[1] for w in weights), default=0)
    blocks = [skeleton.get_submodule(block) for chain in find_chains(skeleton) for block in chain]
    largest = max((_bytes(block) for block in blocks), default=0)
    steps = tuple(step.name for step in recipe.steps)
    seconds, activations = coded * _seconds_per_weight(recipe, device), 0
    calibrates = needs_sequences(skeleton, recipe)
    if calibrates and isinstance(skeleton, ESMFold):
        lengths = [model_length(sequence) for sequence in sequences]
        seconds += _seconds_of_passes(skeleton.config, lengths, device)
        budget = MemoryBudget.before_loading(skeleton, _FLOAT, "float", None, device=_CPU)
        activations = budget.at(max(lengths)).activations
    moments = _SECOND_MOMENTS * 4 * widest**2 if steps else 0
    outside = _bytes(skeleton) - sum(map(_bytes, blocks))
    # A block as read, in float32, and quantized.
    peak = resident + outside + 3 * largest + max(activations, moments)
    unknown = ("calibration",) if calibrates and not isinstance(skeleton, ESMFold) else ()
    return PreparationCost(bytes_on_disk, seconds, peak, (*unknown, *steps))


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def _seconds_per_weight(recipe: Recipe, device: torch.device) -> float:
    """Return the seconds per weight of rounding to nearest, measured on one matrix; 0 if no weight is quantized."""
    sample = nn.ModuleDict({"sample": nn.Linear(_SAMPLE, _SAMPLE, bias=False, device=device)})
    nearest = replace(recipe, kinds={"linear_weight": recipe.kinds.get("linear_weight")}, sites={}, steps=[])
    if nearest.is_float:
        return 0.0
    started = time.perf_counter()
    quantize_weights(sample, nearest)
    return (time.perf_counter() - started) / _SAMPLE**2


def _seconds_of_passes(config: ESMFoldConfig, lengths: Sequence[int], device: torch.device) -> float:
    """Return the seconds of calibration: the float model runs once as a whole, then once block by block."""
    times = measure_times(config, _FLOAT, None, device, torch.float32)
    return 2 * sum(times.seconds(length, _PASSES) for length in lengths)
