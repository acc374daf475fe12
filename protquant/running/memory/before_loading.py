"""The memory that a model is going to take, told by its name before anything of it is loaded."""

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
        If there is no such model, or it is a language model.
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
    """Return what folding may take with a model that is going to be quantized by `recipe`, and run as `running` says.

    Parameters
    ----------
    running : Execution or None
        None for a model that stays in float.

    Raises
    ------
    ProtquantError
        If integers are asked for beside floats of 16 bits, which a folding trunk does not have.
    """
    if running is not None and running.integer and dtype != torch.float32:
        raise ProtquantError(
            f"{recipe.name} runs on integers, beside which a folding trunk has floats of 32 bits; give --dtype float32"
        )
    backend = None if running is None else running.backend
    runs: Runs = "float" if recipe.is_float else "simulated" if backend is None else "integer"
    return MemoryBudget.before_loading(
        network, recipe, runs, backend, device=device, dtype=dtype, max_memory=max_memory
    )
