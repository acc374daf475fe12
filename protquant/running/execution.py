"""Execution of a quantized model, simulated in float or on integers, and its description in tables and messages."""

from typing import Any, TypeVar

import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.integer import Support, to_integer
from protquant.kernels.backend import Backend
from protquant.kernels.dispatch import choose_backend
from protquant.quant import Recipe, check_execution

__all__ = ["Execution", "is_float", "wants_integers"]

_Model = TypeVar("_Model", bound=nn.Module)


def is_float(recipe: Recipe) -> bool:
    """Return whether a recipe quantizes no site."""
    return recipe.is_float


def wants_integers(recipe: Recipe, execution: str | None = None) -> bool:
    """Return whether `execution` (by default the recipe's) is `integer`.

    Raises
    ------
    ProtquantError
        If `execution` is unknown.
    """
    if execution is not None:
        check_execution(execution, "what a model runs as")
    return (execution or recipe.execution) == "integer"


class Execution:
    """Execution of a model with a recipe.

    Parameters
    ----------
    execution : str, optional
        `simulate` or `integer`; by default the recipe's execution.
    backend : str
        Backend of the integer kernels: `auto`, `reference`, `cpu` or `triton`.
    device : torch.device
        Device of the model.

    Attributes
    ----------
    integer : bool
        Whether the model runs on integers.
    backend : Backend or None
        Backend of the integer kernels; None if the model does not run on integers.
    support : Support or None
        Parts that run on integers; None before `convert`.

    Raises
    ------
    ProtquantError
        If execution or backend are unknown, the backend does not run on this machine, or the recipe quantizes nothing.
    """

    backend: Backend | None
    support: Support | None

    def __init__(self, recipe: Recipe, execution: str | None, backend: str, device: torch.device) -> None:
        self.integer = wants_integers(recipe, execution)
        self._is_float = is_float(recipe)
        if self.integer and self._is_float:
            raise ProtquantError(f"{recipe.name} leaves everything in float; choose a recipe that can run on integers")
        if not self.integer and backend != "auto":
            raise ProtquantError(
                f"backend {backend} has kernels for integers, but {recipe.name} is simulated in float; set execution"
                " to integer, or omit the backend"
            )
        self.backend = self.support = None
        if self.integer:
            try:
                self.backend = choose_backend(backend, device)
            except ValueError as error:
                raise ProtquantError(str(error)) from None

    def convert(self, quantized: _Model) -> _Model:
        """Return the model for this execution; for integers, `quantized` must not be used afterwards."""
        if self.backend is not None:
            quantized, self.support = to_integer(quantized, self.backend, inplace=True)
        return quantized

    @property
    def ran(self) -> str:
        """Actual execution: `integer` if any part runs on integers, otherwise `simulated` or `float`."""
        if self._is_float:
            return "float"
        return "simulated" if self.support is None else self.support.ran

    def settings(self) -> dict[str, Any]:
        """Return the settings on which results depend; they are known before the model runs."""
        return {
            "execution": "integer" if self.integer else "simulate",
            "kernels": None if self.backend is None else self.backend.kernel,
        }

    def columns(self) -> dict[str, str]:
        """Return columns for tables: execution, backend, and the kernel of each operation."""
        kernels = "torch" if self.support is None else self.support.kernels
        return {"execution": self.ran, "kernels": kernels, "operations": ", ".join(self.operations())}

    def operations(self) -> dict[str, int]:
        """Return the number of calls of each integer operation, by kernel."""
        calls = {} if self.backend is None else self.backend.calls
        return {f"{what} by {by}": count for (what, by), count in sorted(calls.items())}

    def summary(self) -> str:
        """Return one line on which parts run on integers; empty if the execution is not `integer`."""
        if self.support is None:
            return ""
        text = self.support.summary()
        if self.support.weight_elements:
            text += f"; {self.support.weight_bytes / self.support.weight_elements:.3f} bytes per weight"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; `parts` has the kernel of each part, or the reason why it has none."""
        return {
            **self.columns(),
            "operations": self.operations(),
            "summary": self.summary(),
            "weight_bytes": None if self.support is None else self.support.weight_bytes,
            "weight_elements": None if self.support is None else self.support.weight_elements,
            "parts": [] if self.support is None else self.support.to_dicts(),
        }
