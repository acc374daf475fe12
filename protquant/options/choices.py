"""Names and defaults that commands show in their help; nothing here needs torch."""

from collections.abc import Mapping
from typing import Literal

from protquant.errors import ProtquantError
from protquant.kernels.backend_names import BackendName
from protquant.models.tasks import TASKS, TaskName

__all__ = [
    "DEMO_CHAINS",
    "DRIFT_POWERS",
    "MASK_EVERY",
    "TASKS",
    "BFactor",
    "BackendName",
    "DtypeName",
    "ExecutionName",
    "LayoutName",
    "TaskName",
    "check_task",
]

BFactor = Literal["plddt", "error"]
DtypeName = Literal["float32", "bfloat16", "float16"]
ExecutionName = Literal["simulate", "integer"]
LayoutName = Literal["protquant", "colabfold", "nf-core"]

DEMO_CHAINS = 3
"""Number of chains of the demo's comparison: float, three simulations and integers fold each of them."""

MASK_EVERY = 8
"""Distance of hidden residues: 12.5 % are hidden at a time; in ESM-2's training 12 % of the tokens were `<mask>`."""

DRIFT_POWERS: Mapping[str, float] = {
    "logit_kl": 1.0,
    "contact_drift": 2.0,
    "distogram_kl": 1.0,
    "lddt_drift": 1.0,
    "tm_drift": 1.0,
}
"""Power with which the drifts of independent parts add up. Independent changes add in squares. Divergences are squares
of changes to leading order, so they add with power 1; mean absolute changes add with power 2.
"""


def check_task(name: str) -> TaskName:
    """Return the name of a task.

    Raises
    ------
    ProtquantError
        If there is no task of that name.
    """
    if name not in TASKS:
        raise ProtquantError(f"unknown task {name!r}; choose structure, contacts or language")
    task: TaskName = name
    return task
