"""Which recipes claim integer support: told by their formats, without a model's weights and without calibration."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from protquant.integer.operands import NoIntegerKernelError, grid_of, integer_weight
from protquant.models import ESMFold, ESMFoldConfig
from protquant.models.esm2 import ESM2Config
from protquant.models.trunk import TrunkConfig
from protquant.quant import Assignment, Calibration, Format, Observer, QuantizedLinear, Recipe, plan

__all__ = ["IntegerClaim", "integer_claim"]

_CHANNELS = 8


@dataclass(frozen=True)
class IntegerClaim:
    """Whether every linear layer that a recipe quantizes has an integer kernel.

    Attributes
    ----------
    claimed : bool
    reason : str
        Why not; empty where it is.
    """

    claimed: bool
    reason: str = ""


def integer_claim(recipe: Recipe) -> IntegerClaim:
    """Whether every linear layer of language model and folding trunk that a recipe quantizes has an integer kernel.

    Layers that it leaves in float altogether, such as heads, do not count. Steps may put transforms before a layer,
    which are applied in float, and choose scales and codes, but no other formats.

    Raises
    ------
    ProtquantError
        If the recipe names sites that a small ESMFold does not have.
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
    """A folding model of one layer and one block, without weights."""
    with torch.device("meta"):
        return ESMFold(ESMFoldConfig(lm=ESM2Config(num_layers=1), trunk=TrunkConfig(num_blocks=1)))


def _counts(assignment: Assignment) -> bool:
    return not assignment.excluded and assignment.site.name.startswith(("lm.", "trunk."))


def _check_weight(form: Format | None, path: str) -> None:
    layer = nn.Linear(_CHANNELS, _CHANNELS)
    integer_weight(QuantizedLinear(layer, None if form is None else form.for_weight(layer.weight)), path)


def _check_input(form: Format | None, calibration: Calibration, path: str) -> None:
    if form is None:
        raise NoIntegerKernelError(f"{path}.input is in float")
    if form.needs_statistics and len(calibration.bins) > 1:
        raise NoIntegerKernelError(f"{path}.input has a range for each bin of lengths")
    observer = Observer(path)
    observer.update(torch.randn(_CHANNELS, _CHANNELS, generator=torch.Generator().manual_seed(0)))
    observer.end_sequence()
    grid_of(form.for_activation(observer.statistics(), calibration), f"{path}.input")
