"""Linear layers one by one, where they are not part of something larger that runs on integers."""

from torch import nn

from protquant.integer.linear import IntegerLinear
from protquant.integer.operands import NoIntegerKernelError
from protquant.kernels.backend import Backend
from protquant.quant.modules import QuantizedLinear

__all__ = ["PartRow", "linear_twin"]

PartRow = tuple[str, str, str]
"""Path of a part of a model; `integer` or `simulated`; the kernel, or why there is none."""


def linear_twin(layer: nn.Module, backend: Backend, path: str, rows: list[PartRow]) -> nn.Module:
    """The integer twin of a quantized linear layer, or the layer itself where it has none; `rows` are told which."""
    try:
        twin = IntegerLinear(layer, backend, path)  # type: ignore[arg-type]
    except NoIntegerKernelError as reason:
        if isinstance(layer, QuantizedLinear):
            rows.append((path, "simulated", str(reason)))
        else:
            rows.append((path, "simulated", f"{path} is in float"))
        return layer
    rows.append((path, "integer", backend.kernel))
    return twin
