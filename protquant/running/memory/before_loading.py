"""The memory of a model, predicted by its name before it is loaded."""

from typing import TYPE_CHECKING

import torch

from protquant.checkpoints import skeleton
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.quant import Recipe
from protquant.running.execution import Execution
from protquant.running.memory.budget import MemoryBudget

if TYPE_CHECKING:
    from protquant.running.memory.setup import Runs

__all__ = ["folding_skeleton", "memory_budget"]


def folding_skeleton(model: str) -> ESMFold:
    """Return a folding model without its weights.

    Raises
    ------
    ProtquantError
        If the model is unknown, or is a language model.
    """
    network = skeleton(model)
    if not isinstance(network, ESMFold):
        raise ProtquantError(f"{model} is a language model and cannot fold; see `protquant contacts`")
    return network


def memory_budget(
    network: ESMFold,
    recipe: Recipe,
    running: Execution | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    max_memory: int | None,
) -> MemoryBudget:
    """Return the memory budget of folding with a model that will be quantized by `recipe` and executed as `running`.

    Parameters
    ----------
    running : Execution or None
        Execution of the model; None for float.

    Raises
    ------
    ProtquantError
        If integer execution is combined with 16-bit floats, which the folding trunk does not support.
    """
    if running is not None and running.integer and dtype != torch.float32:
        raise ProtquantError(
            f"{recipe.name} runs on integers, for which a folding trunk needs 32-bit floats; give --dtype float32"
        )
    backend = None if running is None else running.backend
    runs: Runs = "float" if recipe.is_float else "simulated" if backend is None else "integer"
    return MemoryBudget.before_loading(
        network, recipe, runs, backend, device=device, dtype=dtype, max_memory=max_memory
    )
