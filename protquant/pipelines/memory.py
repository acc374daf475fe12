"""Memory is planned before it is used: what folding a sequence needs, and the chunk size that fits."""

import re
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.models.esmfold import DISTOGRAM_BINS
from protquant.models.triangle import MAX_ATTENTION_ELEMENTS

__all__ = ["MemoryPlan", "available_bytes", "is_out_of_memory", "plan_memory"]

# Tensors of the pair's size that live at once in the widest step of a block, the pair transition: the pair, its
# normalized copy, and four times its width before and after the ReLU.
_PAIR_COPIES = 10
# Logits, their masked copy and the probabilities of triangle attention.
_ATTENTION_COPIES = 3
# Logits of the distogram, symmetrized, and of the aligned error, with its softmax.
_HEAD_COPIES = 5
# Freed pieces that an allocator keeps and cannot use again; felt where chunks are small (measured: 50 to 150 MiB).
ALLOCATOR_KEEPS = 128 * 2**20
_CPU_ALLOCATION_FAILED = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
_CHUNKS = (256, 128, 64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True)
class MemoryPlan:
    """What a batch of `batch` sequences of `length` residues will take at its peak; bytes.

    Attributes
    ----------
    weights : int
        The model itself.
    activations : int
        The widest step, with `chunk_size`.
    chunk_size : int or None
        Rows of triangle attention at a time; None is all.
    """

    length: int
    batch: int
    weights: int
    activations: int
    chunk_size: int | None

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def __str__(self) -> str:
        chunk = "no chunking" if self.chunk_size is None else f"chunks of {self.chunk_size}"
        return (
            f"{self.batch} x {self.length} residues: {self.total / 2**30:.2f} GiB at the peak "
            f"({self.weights / 2**30:.2f} weights, {self.activations / 2**30:.2f} activations, {chunk})"
        )


def available_bytes(device: torch.device) -> int:
    """Free memory of a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: that of a GPU, of torch on the CPU, or of numpy."""
    # torch has a type of its own for GPUs only; on the CPU its allocator's words must do (they differ by system).
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATION_FAILED.search(str(error)) is not None
    )


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])


def _activations(model: ESMFold, length: int, batch: int, chunk_size: int | None) -> int:
    trunk = model.config.trunk
    element = model.layer_mix.element_size()
    pair = batch * length**2
    heads = trunk.pair_dim // trunk.pair_head_dim
    block = _PAIR_COPIES * pair * trunk.pair_dim * element
    attention = 4 * pair * trunk.pair_dim * element
    attention += _ATTENTION_COPIES * pair * min(length, chunk_size or length) * heads * element
    head = pair * trunk.pair_dim * element + _HEAD_COPIES * pair * DISTOGRAM_BINS * 4
    return max(block, attention, head) + ALLOCATOR_KEEPS


def plan_memory(
    model: ESMFold, length: int, batch: int = 1, chunk_size: int | None = None, available: int | None = None
) -> MemoryPlan:
    """Predict the peak and choose the chunk size.

    Parameters
    ----------
    chunk_size : int, optional
        Asked for by the user; by default the largest that fits, none if none is needed.
    available : int, optional
        Bytes there are besides the weights (loaded already); by default what is free now.

    Raises
    ------
    ProtquantError
        If it does not fit even in the smallest chunks; says which length would.
    """
    available = available_bytes(model.device) if available is None else available
    weights = _bytes(model)
    heads = model.config.trunk.pair_dim // model.config.trunk.pair_head_dim
    choices: tuple[int | None, ...] = (chunk_size,) if chunk_size else (None, *_CHUNKS)
    if chunk_size is None and batch * heads * length**3 >= MAX_ATTENTION_ELEMENTS:
        choices = _CHUNKS
    for choice in choices:
        needed = _activations(model, length, batch, choice)
        if needed <= available:
            return MemoryPlan(length, batch, weights, needed, choice)
    smallest = chunk_size or 1
    longest = next((n for n in range(length, 0, -1) if _activations(model, n, 1, smallest) <= available), 0)
    raise ProtquantError(
        f"{batch} x {length} residues would need {needed / 2**30:.2f} GiB beside the weights, and "
        f"{available / 2**30:.2f} GiB are free; a single sequence of {longest} residues would fit"
        + (f" at chunk size {chunk_size}; leave --chunk-size out to have it chosen" if chunk_size else "")
    )
