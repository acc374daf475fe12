"""What integer kernels would take on GPUs at best: predicted from published rates, not measured.

A kernel takes at least as long as its bytes at the rate of the memory, and as its operations at the rate of the matrix
units; the larger of the two bounds it. Real kernels reach a part of that. Exponentials of attention, and all else that
is not reckoned on matrix units, are left out; float results are of 16 bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["GPUS", "GPURates", "Prediction", "Work", "kernel_work", "predict", "roofline"]


@dataclass(frozen=True)
class GPURates:
    """Published peaks of a GPU, dense.

    Attributes
    ----------
    int8 : float
        Operations a second of the matrix units on int8; a multiplication and an addition are two.
    bytes : float
        Bytes a second of the memory.
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
"""From the data sheets of NVIDIA (A100, H100) and AMD (MI300X)."""

LENGTHS = (256, 512, 1024)
PAIR, HEADS, HEAD_DIM, HIDDEN = 128, 4, 32, 512  # of ESMFold's trunk
_CODE, _HALF, _SINGLE, _SCALE = 1, 2, 4, 4  # bytes


@dataclass(frozen=True)
class Work:
    """What a kernel does once.

    Attributes
    ----------
    shape : str
    operations : float
        Of the matrix units.
    bytes : float
        That go through the memory if each operand is read, and each result written, once.
    """

    kernel: str
    shape: str
    length: int
    operations: float
    bytes: float


@dataclass(frozen=True)
class Prediction:
    """A lower bound of the time, in microseconds, and what sets it."""

    kernel: str
    shape: str
    length: int
    gpu: str
    megabytes: float
    gigaoperations: float
    bound: Literal["memory", "matrix units"]
    microseconds: float


def kernel_work(length: int) -> Iterator[Work]:
    """The kernels of one trunk block with its released sizes, for a protein of `length` residues."""
    pairs = float(length) ** 2
    codes, half = pairs * PAIR * _CODE, pairs * PAIR * _HALF
    scales = pairs * _SCALE

    def linear(kernel: str, reads: int, writes: int, weight_bytes: float) -> Work:
        operations = 2 * pairs * reads * writes
        moved = pairs * reads * _CODE + scales + weight_bytes + writes * (_SCALE + _SINGLE) + pairs * writes * _HALF
        return Work(kernel, f"{length * length} x {reads} -> {writes}", length, operations, moved)

    fused = 5 * PAIR  # all that reads the normalized pair
    yield linear("linear_int8", PAIR, fused, PAIR * fused)
    # Half a byte a weight; a scale of 2 bytes and a zero point of half a byte for each group of 64.
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
    # Queries against keys, and probabilities against values; no logits leave the chip. One bias for all rows.
    yield Work(
        "attention_int8",
        f"{length} rows, {HEADS} heads of {HEAD_DIM}, {length} tokens",
        length,
        2 * 2 * length * HEADS * float(length) ** 2 * HEAD_DIM,
        3 * codes + HEADS * pairs * _HALF + half,
    )
    # Up and down in one kernel: what lies between stays on the chip. The residual is read and written.
    yield Work(
        "transition_int8",
        f"{length * length} x {PAIR} -> {HIDDEN} -> {PAIR}",
        length,
        2 * 2 * pairs * PAIR * HIDDEN,
        codes + scales + 2 * PAIR * HIDDEN + 2 * half,
    )


def predict(work: Work, gpu: GPURates) -> Prediction:
    """The larger of the times that bytes and operations take."""
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
    """All kernels at all lengths on all GPUs: predicted, not measured."""
    return [predict(work, GPUS[gpu]) for length in lengths for work in kernel_work(length) for gpu in gpus]
