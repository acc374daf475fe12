"""Resumable training state: model, optimizer and schedule after a step."""

import os
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["load_training_state", "save_training_state"]

_FILE = "state.pt"


def save_training_state(folder: Path, step: int, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> None:
    """Write the state after `step` steps; an interruption leaves the previous state whole."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }
    temporary = folder / (_FILE + ".tmp")
    torch.save(state, temporary)
    os.replace(temporary, folder / _FILE)


def load_training_state(folder: Path, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> int:
    """Restore what `save_training_state` wrote, in place, and return its step; 0 when there is none."""
    path = folder / _FILE
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["step"])
