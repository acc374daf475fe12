"""Memory budget of folding: free memory, memory of the model, and the largest chunk size that fits."""

from dataclasses import dataclass, replace

import torch

from protquant.errors import ProtquantError
from protquant.kernels.backend import Backend
from protquant.models import ESMFold
from protquant.models.triangle import MAX_ATTENTION_ELEMENTS
from protquant.quant import Recipe
from protquant.quant.memory import release_freed
from protquant.running.memory.amounts import format_bytes
from protquant.running.memory.plan import MemoryPlan, plan_activations
from protquant.running.memory.process import available_bytes, resident_bytes
from protquant.running.memory.setup import Runs, Setup
from protquant.running.memory.weights import bytes_to_come, setup_of_recipe, weight_bytes

__all__ = ["MemoryBudget", "plan_memory"]

_CPU = torch.device("cpu")
_MORE_LOADED = 128 * 2**20
"""Additional bytes that a process takes after loading a model, beside the weights."""
_CHUNKS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
_LONGEST = 2**16


@dataclass(frozen=True)
class MemoryBudget:
    """Memory that folding with one model may take.

    Attributes
    ----------
    setup : Setup
        Sizes and execution of the model.
    device : torch.device
        Device of the model.
    resident : int
        Bytes that the process takes between folds: interpreter, libraries and weights; on a GPU only weights.
    allowed : int
        Bytes that the process may take in total.
    loading : int
        Peak of main memory in bytes while the model is loaded; 0 for a model in memory.
    limit : int or None
        Limit on the device's memory in bytes, set by the user.
    shared_by : int
        Number of processes that share the machine's memory; this is the budget of one.
    """

    setup: Setup
    device: torch.device
    resident: int
    allowed: int
    loading: int = 0
    limit: int | None = None
    shared_by: int = 1

    @classmethod
    def of(cls, model: ESMFold, max_memory: int | None = None) -> "MemoryBudget":
        """Return the budget of a model that is in memory.

        Parameters
        ----------
        max_memory : int, optional
            Bytes that the whole process may take; by default its current memory plus the free memory.
        """
        release_freed()  # memory that loading left in the heap would count as resident
        resident = resident_bytes(model.device) + bytes_to_come(model)
        return cls(Setup.of(model), model.device, resident, _allowed(model.device, max_memory), limit=max_memory)

    @classmethod
    def before_loading(
        cls,
        skeleton: ESMFold,
        recipe: Recipe,
        runs: Runs,
        backend: Backend | None,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        max_memory: int | None = None,
    ) -> "MemoryBudget":
        """Return the budget of a model that this process is going to load.

        Parameters
        ----------
        skeleton : ESMFold
            Float model on the meta device.
        recipe, runs, backend, dtype
            As for `setup_of_recipe`.
        device : torch.device
            Device on which the model will run.
        """
        weights = weight_bytes(skeleton, recipe, runs, dtype)
        # A float model is read in float32 on the CPU. Codes, too, are on the CPU before they move to another device.
        read = max(weights, weight_bytes(skeleton, recipe, runs)) if runs == "float" else weights
        here = resident_bytes(_CPU) + _MORE_LOADED
        return cls(
            setup_of_recipe(skeleton, recipe, runs, backend, dtype),
            device,
            weights if device.type == "cuda" else here + weights,
            _allowed(device, max_memory),
            here + read,
            max_memory,
        )

    @property
    def available(self) -> int:
        """Bytes that activations may take; negative if the model itself does not fit."""
        return self.allowed - self.resident

    def share(self, count: int, private: int = 0) -> "MemoryBudget":
        """Return the budget of one of `count` processes that share all resident memory except for `private` bytes."""
        if count < 2:
            return self
        own = self.resident + max(0, self.available - (count - 1) * private) // count
        return replace(self, allowed=own, limit=own, shared_by=count)

    def now(self) -> "MemoryBudget":
        """Return the budget with the current free memory, which other processes may have changed."""
        return replace(self, allowed=_allowed(self.device, self.limit))

    def check_weights(self, what: str) -> None:
        """Refuse a model that does not fit even without activations.

        Parameters
        ----------
        what : str
            Name of the model, for the message.

        Raises
        ------
        ProtquantError
            If the model does not fit.
        """
        # The user's limit is for the device that folds: with a GPU it does not apply to main memory.
        main = _allowed(_CPU, self.limit if self.device.type == "cpu" else None)
        for verb, needed, allowed in (
            ("once it is loaded", self.resident, self.allowed),
            ("while it is loaded", self.loading, main),
        ):
            if needed > allowed:
                raise ProtquantError(
                    f"{what} takes {format_bytes(needed)} {verb}, but {format_bytes(allowed)} are available;"
                    " `protquant plan` shows which recipes fit"
                )

    def plan(self, length: int, batch: int = 1, chunk_size: int | None = None) -> MemoryPlan:
        """Return the memory plan of `batch` sequences of `length` residues, with a chunk size that fits.

        Parameters
        ----------
        chunk_size : int, optional
            Chunk size set by the user; by default the largest that fits, or none if it is not needed.

        Raises
        ------
        ProtquantError
            If the smallest chunks do not fit. The message has the length that fits, and the memory that is needed.
        """
        plans = [self.at(length, batch, choice) for choice in self._choices(length, batch, chunk_size)]
        fitting = next((plan for plan in plans if plan.activations <= self.available), None)
        if fitting is not None:
            return fitting
        longest = self.longest(chunk_size)
        would = f"a single sequence of {longest} residues would fit" if longest else "no sequence would fit"
        asked = chunk_size is not None and self.setup.has_chunks
        raise ProtquantError(
            f"{batch} x {length} residues would need {format_bytes(plans[-1].activations)} beside the weights, and"
            f" {format_bytes(max(0, self.available))} are free; {would}, or this with {format_bytes(plans[-1].total)}"
            " for the whole process"
            + (f", at chunk size {chunk_size}; leave --chunk-size out to have it chosen" if asked else "")
            + (f"; this is the share of one of {self.shared_by} --workers" if self.shared_by > 1 else "")
        )

    def at(self, length: int, batch: int = 1, chunk_size: int | None = None) -> MemoryPlan:
        """Return the memory plan of a batch at a chunk size (None: no chunks), even if it does not fit."""
        loading = 0 if self.device.type == "cuda" else self.loading
        return plan_activations(self.setup, length, batch, chunk_size, resident=self.resident, loading=loading)

    def longest(self, chunk_size: int | None = None) -> int:
        """Return the length of the longest sequence that fits, by default in the smallest chunks; 0 if none does."""
        shortest, longest = 0, _LONGEST
        while longest - shortest > 1:
            middle = (shortest + longest) // 2
            fits = self.at(middle, 1, chunk_size or 1).activations <= self.available
            shortest, longest = (middle, longest) if fits else (shortest, middle)
        return shortest

    def _choices(self, length: int, batch: int, chunk_size: int | None) -> tuple[int | None, ...]:
        if not self.setup.has_chunks:
            return (None,)
        if chunk_size is not None:
            return (chunk_size,)
        heads = self.setup.config.trunk.pair_dim // self.setup.config.trunk.pair_head_dim
        return _CHUNKS if batch * heads * length**3 >= MAX_ATTENTION_ELEMENTS else (None, *_CHUNKS)


def _allowed(device: torch.device, limit: int | None) -> int:
    """Return the bytes that this process may take of a device: its current plus the free memory, at most `limit`."""
    most = resident_bytes(device) + available_bytes(device)
    return most if limit is None else min(most, limit)


def plan_memory(
    model: ESMFold, length: int, batch: int = 1, chunk_size: int | None = None, *, max_memory: int | None = None
) -> MemoryPlan:
    """Predict the peak memory of folding with a loaded model, and choose the chunk size.

    Parameters
    ----------
    chunk_size : int, optional
        As for `MemoryBudget.plan`.
    max_memory : int, optional
        Bytes that the whole process may take, including its current memory; by default all that is free.

    Raises
    ------
    ProtquantError
        If the batch does not fit, see `MemoryBudget.plan`.
    """
    return MemoryBudget.of(model, max_memory).plan(length, batch, chunk_size)
