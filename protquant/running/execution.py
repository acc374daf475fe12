"""Simulated in float or on integers: what a quantized model is to run as, what became of it, and how that is told."""

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
    """Whether a recipe leaves every site as it is."""
    return recipe.is_float


def wants_integers(recipe: Recipe, execution: str | None = None) -> bool:
    """Whether a model is to run on integers: by `execution`, or by the recipe where that is None.

    Raises
    ------
    ProtquantError
        If there is no such execution.
    """
    if execution is not None:
        check_execution(execution, "what a model runs as")
    return (execution or recipe.execution) == "integer"


class Execution:
    """What a model runs as under a recipe.

    Parameters
    ----------
    execution : str, optional
        `simulate` or `integer`; by default what the recipe says.
    backend : str
        Whose kernels: `auto`, `reference`, `cpu` or `triton`.
    device : torch.device
        That the model is on.

    Attributes
    ----------
    integer : bool
        Whether the model is to run on integers.
    backend : Backend or None
        None where it is not.
    support : Support or None
        Which parts of it do; None before `convert`.

    Raises
    ------
    ProtquantError
        If there is no such execution or backend, it does not run here, or there is nothing that it could run.
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
                f"backend {backend} has kernels for integers, and {recipe.name} is simulated in float; ask for"
                " execution integer too, or leave the backend out"
            )
        self.backend = self.support = None
        if self.integer:
            try:
                self.backend = choose_backend(backend, device)
            except ValueError as error:
                raise ProtquantError(str(error)) from None

    def convert(self, quantized: _Model) -> _Model:
        """Let a quantized model run as it is to; on integers, `quantized` itself cannot be used any more."""
        if self.backend is not None:
            quantized, self.support = to_integer(quantized, self.backend, inplace=True)
        return quantized

    @property
    def ran(self) -> str:
        """`float`, `simulated` or `integer`; the last where any part is on integers."""
        if self._is_float:
            return "float"
        return "simulated" if self.support is None else self.support.ran

    def settings(self) -> dict[str, Any]:
        """What results depend on; known before anything has run."""
        return {
            "execution": "integer" if self.integer else "simulate",
            "kernels": None if self.backend is None else self.backend.kernel,
        }

    def columns(self) -> dict[str, str]:
        """For tables: what it ran as, by which kernels, and which operation by which."""
        kernels = "torch" if self.support is None else self.support.kernels
        return {"execution": self.ran, "kernels": kernels, "operations": ", ".join(self.operations())}

    def operations(self) -> dict[str, int]:
        """How often each operation on codes has run, by what ran."""
        calls = {} if self.backend is None else self.backend.calls
        return {f"{what} by {by}": count for (what, by), count in sorted(calls.items())}

    def summary(self) -> str:
        """One line for people on what runs on integers and what does not; empty where nothing is to."""
        if self.support is None:
            return ""
        text = self.support.summary()
        if self.support.weight_elements:
            text += f"; {self.support.weight_bytes / self.support.weight_elements:.3f} bytes per weight"
        return text

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data; `parts` has the kernel of every part, or why there is none."""
        return {
            **self.columns(),
            "operations": self.operations(),
            "summary": self.summary(),
            "weight_bytes": None if self.support is None else self.support.weight_bytes,
            "weight_elements": None if self.support is None else self.support.weight_elements,
            "parts": [] if self.support is None else self.support.to_dicts(),
        }
