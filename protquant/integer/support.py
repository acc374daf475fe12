"""Report the execution of each part of a model, and which recipes have integer kernels for all quantized layers."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from protquant.integer.operands import NoIntegerKernelError, grid_of, integer_weight
from protquant.integer.part import HoldsLayers, Runs, SupportRow
from protquant.kernels.backend import Backend, Linear
from protquant.models import ESMFold, ESMFoldConfig
from protquant.models.esm2 import ESM2Config
from protquant.models.trunk import TrunkConfig
from protquant.quant import Assignment, Calibration, Format, Observer, QuantizedLinear, Recipe, plan

__all__ = ["IntegerClaim", "Support", "integer_claim", "prepared_layers"]

_CHANNELS = 8


@dataclass(frozen=True)
class Support:
    """The parts of a model that run on integers, and the parts that are simulated.

    Attributes
    ----------
    rows : list of SupportRow
    backend : Backend
        Backend, which counts its calls.
    weight_bytes : int
        Bytes of integer weights in memory: codes, scales and zero points.
    weight_elements : int
        Number of elements of these weights.
    """

    rows: list[SupportRow]
    backend: Backend
    weight_bytes: int = 0
    weight_elements: int = 0

    @property
    def simulated(self) -> list[SupportRow]:
        """Rows of simulated parts."""
        return [row for row in self.rows if row.runs == "simulated"]

    @property
    def ran(self) -> Runs:
        """`integer` if any part runs on integers, else `simulated`."""
        return "integer" if len(self.simulated) < len(self.rows) else "simulated"

    @property
    def kernels(self) -> str:
        """The backend's kernel, and the number of simulated parts."""
        simulated = f"; {len(self.simulated)} of {len(self.rows)} parts simulated" if self.simulated else ""
        return self.backend.kernel + simulated

    def summary(self) -> str:
        """Return one line for people and tables."""
        text = f"{len(self.rows) - len(self.simulated)} of {len(self.rows)} parts on integers ({self.backend.kernel})"
        if self.simulated:
            text += f"; simulated in float: {self.simulated[0].path} ({self.simulated[0].what})"
            text += f" and {len(self.simulated) - 1} more" if len(self.simulated) > 1 else ""
        return text

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain data."""
        return [vars(row) for row in self.rows]


def prepared_layers(model: nn.Module) -> list[Linear]:
    """Return all linear layers of a backend in a converted model."""
    return [layer for part in model.modules() if isinstance(part, HoldsLayers) for layer in part.prepared().values()]


@dataclass(frozen=True)
class IntegerClaim:
    """The answer whether every linear layer that a recipe quantizes has an integer kernel.

    Attributes
    ----------
    claimed : bool
    reason : str
        The first layer without a kernel, and the reason; empty if all layers have one.
    """

    claimed: bool
    reason: str = ""


def integer_claim(recipe: Recipe) -> IntegerClaim:
    """Return whether each linear layer of language model and folding trunk that a recipe quantizes has a kernel.

    The formats of the recipe determine the answer; neither weights nor calibration are needed. Layers that the recipe
    leaves in float, such as heads, do not count. Steps do not matter: they may choose scales and codes, and put float
    transforms before a layer, but do not change formats.

    Raises
    ------
    ProtquantError
        If the recipe names sites that an ESMFold of one layer and one block does not have.
    """
    assignments = plan(_one_of_each(), recipe)
    pairs: dict[tuple[Format | None, Format | None], str] = {}
    for assignment in assignments:
        if assignment.site.kind == "linear_weight" and _counts(assignment):
            path = assignment.site.module
            pairs.setdefault((assignment.format, assignments.input_format(path)), path)
    pairs.pop((None, None), None)
    if not pairs:
        return IntegerClaim(False, "quantizes no linear layer")
    for (weight, read), path in pairs.items():
        try:
            _check_input(read, recipe.calibration, path)
            _check_weight(weight, path)
        except NoIntegerKernelError as reason:
            return IntegerClaim(False, str(reason))
    return IntegerClaim(True)


@cache
def _one_of_each() -> ESMFold:
    """Return a folding model of one layer and one block, without weights."""
    with torch.device("meta"):
        return ESMFold(ESMFoldConfig(lm=ESM2Config(num_layers=1), trunk=TrunkConfig(num_blocks=1)))


def _counts(assignment: Assignment) -> bool:
    return not assignment.excluded and assignment.site.name.startswith(("lm.", "trunk."))


def _check_weight(format_: Format | None, path: str) -> None:
    layer = nn.Linear(_CHANNELS, _CHANNELS)
    integer_weight(QuantizedLinear(layer, None if format_ is None else format_.for_weight(layer.weight)), path)


def _check_input(format_: Format | None, calibration: Calibration, path: str) -> None:
    if format_ is None:
        raise NoIntegerKernelError(f"{path}.input is in float")
    if format_.needs_statistics and len(calibration.bins) > 1:
        raise NoIntegerKernelError(f"{path}.input has a range for each bin of lengths")
    observer = Observer(path)
    observer.update(torch.randn(_CHANNELS, _CHANNELS, generator=torch.Generator().manual_seed(0)))
    observer.end_sequence()
    grid_of(format_.for_activation(observer.statistics(), calibration), f"{path}.input")
