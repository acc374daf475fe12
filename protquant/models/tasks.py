"""The names of what models do; nothing here needs torch."""

from typing import Literal, get_args

__all__ = ["TASKS", "TaskName"]

TaskName = Literal["structure", "contacts", "language"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
