"""Training state for resuming: model and optimizers after a step."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["load_training_state", "save_training_state"]

_FILE = "state.pt"


def save_training_state(folder: Path, step: int, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Write the state after `step` steps; after an interruption, the previous state is intact."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    temporary = folder / (_FILE + ".tmp")
    torch.save(state, temporary)
    temporary.replace(folder / _FILE)


def load_training_state(folder: Path, model: nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """Restore a state of `save_training_state` in place, and return its step; 0 if there is none."""
    path = folder / _FILE
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
