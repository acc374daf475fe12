"""The operations that follow the sums of a linear layer: activation, gate, residual, rounding to a type or to codes."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.operands import Activation, Grid

__all__ = ["PLAIN", "Epilogue"]


@dataclass(frozen=True)
class Epilogue:
    """Options that all linear layers share: `residual + gate * activation(sums + bias)`.

    Attributes
    ----------
    activation : str
        "none", "relu", "gelu" (the exact one), or "sigmoid" for a gate.
    gate, residual : Tensor, shape=(m, n), or None
        Factors after the activation, and summands at the end.
    dtype : torch.dtype
        Type of the floats that are written.
    grid : Grid or None
        If given, the output is int8 codes on its signed form, not floats.
    """

    activation: Activation | Literal["sigmoid"] = "none"
    gate: Float[Tensor, "m n"] | None = None
    residual: Float[Tensor, "m n"] | None = None
    dtype: torch.dtype = torch.float32
    grid: Grid | None = None

    def check(self, m: int, n: int) -> None:
        """Raise ValueError if the options do not fit an output of m rows and n channels."""
        for name, matrix in (("gate", self.gate), ("residual", self.residual)):
            if matrix is not None and tuple(matrix.shape) != (m, n):
                raise ValueError(f"{name} has the shape {tuple(matrix.shape)}, the output ({m}, {n})")
        if self.activation not in ("none", "relu", "gelu", "sigmoid"):
            raise ValueError(f"activation {self.activation!r} is none of none, relu, gelu, sigmoid")


PLAIN = Epilogue()
"""No activation, gate or residual; the output is float32."""
