"""Names of the tasks of models. This module does not import torch."""

from typing import Literal, get_args

__all__ = ["TASKS", "TaskName"]

TaskName = Literal["structure", "contacts", "language"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
