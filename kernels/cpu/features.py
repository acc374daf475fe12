"""What this CPU can do, found out by trying: versions and names of processors tell little."""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

__all__ = ["Features", "IntegerProduct", "features"]

IntegerProduct = Literal["onednn", "onednn, 7 bits", "float"]


@dataclass(frozen=True)
class Features:
    """What multiplies codes.

    Attributes
    ----------
    product : str
        `onednn`: unsigned by signed bytes, exactly. `onednn, 7 bits`: exactly where weights have seven bits, as on
        CPUs without VNNI, whose sums of two products saturate at 16 bits: weights go in two parts, at half the speed.
        `float`: neither; codes are multiplied as float32.
    int_mm : bool
        Whether `torch._int_mm` multiplies signed bytes exactly.
    bfloat16 : bool
        Whether products of bfloat16 are faster than those of float32. Integers up to 256 are exact in it.
    """

    product: IntegerProduct
    int_mm: bool
    bfloat16: bool = False


@cache
def features() -> Features:
    """Try the products that torch has; the answer is kept."""
    return Features(_integer_product(), _has_int_mm(), _has_bfloat16())


def _integer_product() -> IntegerProduct:
    # The largest products there are, many in a row: what saturates, does so here.
    x = torch.full((16, 64), 255, dtype=torch.uint8)
    for largest, answer in ((127, "onednn"), (64, "onednn, 7 bits")):
        weight = torch.full((16, 64), largest, dtype=torch.int8)
        weight[1::2] = -largest
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                packed = torch.ops.onednn.qlinear_prepack(weight, None)
                y = torch.ops.onednn.qlinear_pointwise(
                    x, 1.0, 0, packed, torch.ones(16), torch.zeros(16, dtype=torch.int32), None,
                    1.0, 0, torch.float32, "none", [], "",
                )  # fmt: skip
        except (RuntimeError, AttributeError, NotImplementedError):
            return "float"
        if torch.equal(y, (x.double() @ weight.double().T).float()):
            return answer  # type: ignore[return-value]
    return "float"


def _has_int_mm() -> bool:
    x = torch.full((32, 64), -128, dtype=torch.int8)
    weight = torch.full((32, 64), 127, dtype=torch.int8)
    try:
        return torch.equal(torch._int_mm(x, weight.T), (x.long() @ weight.long().T).int())  # noqa: SLF001
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def _has_bfloat16() -> bool:
    try:
        # oneDNN takes bfloat16 on every CPU with AVX512, and is slow where there are no instructions for it.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001
    except (RuntimeError, AttributeError):
        return False
