"""Lower bounds of the time of integer kernels on GPUs: predicted from published rates, not measured.

The time of a kernel is at least its bytes divided by the memory bandwidth, and at least its operations divided by the
rate of the matrix units; the bound is the larger of the two. Real kernels take longer. Exponentials of attention, and
other operations outside of the matrix units, are left out; float results have 16 bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["GPUS", "GPURates", "Prediction", "Work", "kernel_work", "predict", "roofline"]


@dataclass(frozen=True)
class GPURates:
    """Published peak rates of a GPU, without sparsity.

    Attributes
    ----------
    int8 : float
        Int8 operations of the matrix units per second; a multiplication and an addition are two operations.
    bytes : float
        Bytes of memory traffic per second.
    """

    name: str
    int8: float
    bytes: float


GPUS: Mapping[str, GPURates] = MappingProxyType(
    {
        "A100": GPURates("A100 SXM 80 GB", 624e12, 2039e9),
        "H100": GPURates("H100 SXM", 1979e12, 3350e9),
        "MI300X": GPURates("MI300X", 2615e12, 5300e9),
    }
)
"""Rates from the data sheets of NVIDIA (A100, H100) and AMD (MI300X)."""

LENGTHS = (256, 512, 1024)
PAIR, HEADS, HEAD_DIM, HIDDEN = 128, 4, 32, 512  # of ESMFold's trunk
_CODE, _HALF, _SINGLE, _SCALE = 1, 2, 4, 4  # bytes


@dataclass(frozen=True)
class Work:
    """The work of one kernel call.

    Attributes
    ----------
    shape : str
    operations : float
        Number of operations of the matrix units.
    bytes : float
        Bytes of memory traffic if each operand is read once, and each result written once.
    """

    kernel: str
    shape: str
    length: int
    operations: float
    bytes: float


@dataclass(frozen=True)
class Prediction:
    """A lower bound of the time in microseconds, and the resource that sets it."""

    kernel: str
    shape: str
    length: int
    gpu: str
    megabytes: float
    gigaoperations: float
    bound: Literal["memory", "matrix units"]
    microseconds: float


def kernel_work(length: int) -> Iterator[Work]:
    """Return the kernels of one trunk block of the released size, for a protein of `length` residues."""
    pairs = float(length) ** 2
    codes, half = pairs * PAIR * _CODE, pairs * PAIR * _HALF
    scales = pairs * _SCALE

    def linear(kernel: str, reads: int, writes: int, weight_bytes: float) -> Work:
        operations = 2 * pairs * reads * writes
        moved = pairs * reads * _CODE + scales + weight_bytes + writes * (_SCALE + _SINGLE) + pairs * writes * _HALF
        return Work(kernel, f"{length * length} x {reads} -> {writes}", length, operations, moved)

    fused = 5 * PAIR  # outputs of all layers that read the normalized pair
    yield linear("linear_int8", PAIR, fused, PAIR * fused)
    # A weight has half a byte; each group of 64 has a scale of 2 bytes and a zero point of half a byte.
    yield linear("linear_int4", PAIR, fused, PAIR * fused * (0.5 + 2.5 / 64))
    shape = f"{length * length} x {PAIR}"
    yield Work("layer_norm_quantize", shape, length, 0.0, half + codes + scales + 2 * PAIR * _SINGLE)
    yield Work(
        "triangle_product",
        f"{PAIR} x ({length} x {length}) ({length} x {length})",
        length,
        2 * PAIR * float(length) ** 3,
        2 * codes + half,
    )
    # Products of queries with keys, and of probabilities with values; logits stay on the chip. All rows share a bias.
    yield Work(
        "attention_int8",
        f"{length} rows, {HEADS} heads of {HEAD_DIM}, {length} tokens",
        length,
        2 * 2 * length * HEADS * float(length) ** 2 * HEAD_DIM,
        3 * codes + HEADS * pairs * _HALF + half,
    )
    # One kernel for both layers: hidden channels stay on the chip. The residual is read and written.
    yield Work(
        "transition_int8",
        f"{length * length} x {PAIR} -> {HIDDEN} -> {PAIR}",
        length,
        2 * 2 * pairs * PAIR * HIDDEN,
        codes + scales + 2 * PAIR * HIDDEN + 2 * half,
    )


def predict(work: Work, gpu: GPURates) -> Prediction:
    """Return the larger of the times for bytes and for operations."""
    memory, units = work.bytes / gpu.bytes, work.operations / gpu.int8
    return Prediction(
        work.kernel,
        work.shape,
        work.length,
        gpu.name,
        work.bytes / 1e6,
        work.operations / 1e9,
        "memory" if memory >= units else "matrix units",
        max(memory, units) * 1e6,
    )


def roofline(lengths: Sequence[int] = LENGTHS, gpus: Sequence[str] = tuple(GPUS)) -> list[Prediction]:
    """Return predictions, not measurements, of all kernels at all lengths on all GPUs."""
    return [predict(work, GPUS[gpu]) for length in lengths for work in kernel_work(length) for gpu in gpus]
