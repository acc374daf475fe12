"""Choose the products of codes for this CPU: each is tried for exactness, and timed.

Names of processors and versions of libraries do not suffice: a product may saturate, or be a hundred times as slow as
float32. The trials take a few milliseconds, once per process.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

__all__ = ["Features", "IntegerProduct", "exact_products", "features", "has_exact_int_mm", "one_thread"]

IntegerProduct = Literal["onednn", "onednn, 7 bits", "float"]

_MUCH_SLOWER = 4.0
"""float32 replaces an integer product that takes more than 4 times as long. The margin is for the extra passes over
memory that float32 needs, which are not timed here; slow integer products take 20 to 100 times as long."""
_ROUNDS = 5
_HOPELESS = 8.0
"""A product that is slower by this factor is not timed again: noise is smaller."""


@dataclass(frozen=True)
class Features:
    """The products of codes that a CPU uses.

    Attributes
    ----------
    product : str
        Product of linear layers. `onednn`: oneDNN's product of unsigned by signed bytes. `onednn, 7 bits`: the same
        with each weight split into two parts of at most seven bits, for CPUs without VNNI, where the sum of two
        products of whole bytes saturates at 16 bits. `float`: codes are multiplied as float32.
    int_mm : bool
        Whether `torch._int_mm` multiplies signed bytes; if not, they are multiplied as float32.
    bfloat16 : bool
        Whether products of bfloat16 are faster than those of float32. Integers up to 256 are exact in it.
    """

    product: IntegerProduct
    int_mm: bool
    bfloat16: bool = False


@cache
def features() -> Features:
    """Return the fastest exact products of this CPU and this build of torch; the result is cached."""
    with one_thread():
        product = next(name for name in exact_products() if name == "float" or not _is_slow(name))
        return Features(product, has_exact_int_mm() and not _is_int_mm_slow(), _is_bfloat16_fast())


@cache
def exact_products() -> tuple[IntegerProduct, ...]:
    """Return the products of linear layers that are exact on this CPU, in order of preference; float32 is last."""
    return tuple(name for name in get_args(IntegerProduct) if name == "float" or _is_exact(name))


@cache
def has_exact_int_mm() -> bool:
    """Return whether sums of `torch._int_mm` are exact on this CPU: without VNNI they saturate."""
    # Try every pair of extreme codes: a product may saturate for some of them only.
    ends = torch.tensor([[-128, -128], [127, 127], [-128, 127], [127, -128]], dtype=torch.int8)
    x = ends.repeat(8, 32)
    try:
        return torch.equal(torch._int_mm(x, x.T), (x.long() @ x.long().T).int())  # noqa: SLF001
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def _is_exact(product: IntegerProduct) -> bool:
    low, high = (-64, 64) if product == "onednn, 7 bits" else (-128, 127)
    x = torch.full((16, 64), 255, dtype=torch.uint8)
    x[1::2, ::2] = 0
    weight = torch.tensor([[low, low], [high, high], [low, high], [high, low]], dtype=torch.int8).repeat(4, 32)
    try:
        return torch.equal(_onednn(x, weight)(), (x.double() @ weight.double().T).float())
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def _onednn(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    """Return a function that multiplies codes with integer sums, and returns float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
    scale, zero = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int32)
    none: tuple[Any, ...] = (None, 1.0, 0, torch.float32, "none", [], "none")
    return lambda: torch.ops.onednn.qlinear_pointwise(x, 1.0, 0, packed, scale, zero, *none)


def _is_slow(product: IntegerProduct) -> bool:
    x = torch.full((256, 128), 100, dtype=torch.uint8)
    weight = torch.full((128, 128), 50, dtype=torch.int8)
    part = _onednn(x, weight)
    parts = 2 if product == "onednn, 7 bits" else 1

    def integers() -> None:
        for _ in range(parts):
            part()

    return _is_slower(integers, lambda: x.float() @ weight.float().T, _MUCH_SLOWER)


def _is_int_mm_slow() -> bool:
    x = torch.full((128, 128), 100, dtype=torch.int8)
    return _is_slower(lambda: torch._int_mm(x, x), lambda: x.float() @ x.float(), _MUCH_SLOWER)  # noqa: SLF001


def _is_bfloat16_fast() -> bool:
    # Measured: 2 to 4 times as fast on CPUs with bfloat16 instructions; half as fast, or far slower, on others.
    x = torch.ones(128, 512)
    rounded = x.bfloat16()
    return not _is_slower(lambda: rounded @ rounded.mT, lambda: x @ x.mT, 1.0)


def _is_slower(candidate: Callable[[], object], other: Callable[[], object], times: float) -> bool:
    """Return whether `candidate` takes more than `times` as long as `other`: best of a few alternating rounds."""
    best = [float("inf"), float("inf")]
    for round_number in range(1 + _ROUNDS):
        for index, run in enumerate((candidate, other)):
            started = time.thread_time()
            run()
            if round_number:  # oneDNN compiles in the first call.
                best[index] = min(best[index], time.thread_time() - started)
        if round_number and best[0] > _HOPELESS * times * best[1]:
            break
    return best[0] > times * best[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread meanwhile: its CPU time leaves out what other processes take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
