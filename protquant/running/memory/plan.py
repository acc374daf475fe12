"""Peak memory of folding: the largest of all steps, in addition to the weights."""

from collections.abc import Iterator
from dataclasses import dataclass

from protquant.running.memory.amounts import format_bytes
from protquant.running.memory.around_blocks import surrounding_terms
from protquant.running.memory.float_blocks import float_block_terms
from protquant.running.memory.integer_blocks import integer_block_terms
from protquant.running.memory.language_model import language_model_terms
from protquant.running.memory.setup import Setup
from protquant.running.memory.terms import Term

__all__ = ["MemoryPlan", "memory_terms", "plan_activations"]

KERNELS_TAKE = 160 * 2**20
"""Bytes for library code that is loaded on first use, compiled kernels, their scratch memory, and gaps in the heap."""


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted peak memory of a batch of `batch` sequences of `length` residues, in bytes.

    Attributes
    ----------
    resident : int
        Memory before folding: interpreter, libraries and weights.
    activations : int
        Memory that folding takes in addition.
    loading : int
        Peak memory of loading the model; 0 if it is loaded.
    chunk_size : int or None
        Number of rows of the pair that float blocks process at a time; None means all.
    step : str
        Step of folding that has the peak.
    pair : int
        Bytes of one pair tensor of the batch, in the trunk's number type.
    """

    length: int
    batch: int
    resident: int
    activations: int
    chunk_size: int | None
    step: str
    pair: int
    loading: int = 0

    @property
    def total(self) -> int:
        """Peak memory of the whole process, in bytes."""
        return max(self.resident + self.activations, self.loading)

    @property
    def pairs(self) -> float:
        """Activations in units of one pair tensor, for comparisons of folding models."""
        return self.activations / self.pair

    def __str__(self) -> str:
        chunk = "no chunking" if self.chunk_size is None else f"chunks of {self.chunk_size}"
        return (
            f"{self.batch} x {self.length} residues: {format_bytes(self.total)} at the peak"
            f" ({format_bytes(self.resident)} before, {format_bytes(self.activations)} or {self.pairs:.1f} pair tensors"
            f" for activations, in {self.step}, {chunk})"
        )


def memory_terms(setup: Setup, length: int, batch: int = 1, chunk_size: int | None = None) -> Iterator[Term]:
    """Yield the memory terms of all steps of folding a batch."""
    yield from language_model_terms(setup, length, batch)
    for term in _trunk_terms(setup, length, batch, chunk_size):
        yield Term(term.step, term.bytes + _beside(setup, length, batch))


def _trunk_terms(setup: Setup, length: int, batch: int, chunk_size: int | None) -> Iterator[Term]:
    yield from surrounding_terms(setup, length, batch)
    if setup.execution == "integer":
        yield from integer_block_terms(setup, length, batch)
    if setup.execution != "integer" or setup.simulates_blocks:
        yield from float_block_terms(setup, length, batch, chunk_size)


def _beside(setup: Setup, length: int, batch: int) -> int:
    """Return the bytes of tensors, other than the pair, that live throughout the trunk."""
    trunk = setup.config.trunk
    # Bins of distances (int64) and the mask of pairs.
    square = batch * length**2 * (8 + 1)
    # The single: its input, before and after an update, normalized, and projected.
    single = 6 * batch * length * trunk.single_dim * setup.element
    cached = 0
    if setup.execution == "integer" and setup.backend is not None:
        cached = setup.backend.kept_bytes(trunk.pair_dim, trunk.pair_dim // trunk.pair_head_dim, length)
    return square + single + cached


def plan_activations(
    setup: Setup, length: int, batch: int = 1, chunk_size: int | None = None, *, resident: int, loading: int = 0
) -> MemoryPlan:
    """Predict the peak memory of folding a batch at a chunk size, even if it does not fit.

    Parameters
    ----------
    resident, loading : int
        Bytes that the process takes before folding, and at the peak of loading the model.
    """
    widest = max(memory_terms(setup, length, batch, chunk_size), key=lambda term: term.bytes)
    pair = batch * length**2 * setup.config.trunk.pair_dim * setup.element
    return MemoryPlan(length, batch, resident, widest.bytes + KERNELS_TAKE, chunk_size, widest.step, pair, loading)
