"""GPTQ (Frantar et al. 2023): columns are rounded one by one, and later columns compensate for their errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Integer
from pydantic import Field
from torch import Tensor

from protquant.quant.evidence import Evidence
from protquant.quant.formats import Codes, StaticQuantizer
from protquant.quant.settings import Count
from protquant.quant.steps.base import Rounding, register_step
from protquant.quant.steps.inverse_factor import inverse_factor

__all__ = ["GPTQ"]


@register_step("gptq")
@dataclass(frozen=True, kw_only=True)
class GPTQ(Rounding):
    """Choose codes of small output error, column by column, on a fixed grid.

    Two things differ from the paper's code. Scales of groups are those of the original weight (the code's option of
    static groups), because other steps choose the grid. And input channels that were always 0 in calibration are
    rounded to nearest instead of set to 0, because other proteins may use them.

    Attributes
    ----------
    damping : float
        Added to the diagonal of the Hessian, as a share of its mean. The paper's code has 0.01, for 260,000 tokens.
        With the 1,400 residues that ship with protquant 0.01 overfits: on other proteins the output projections of
        ESM-2 8M have up to 1.7 times the error of rounding to nearest; with 0.1 they have at most the same error.
    block : int
        Number of columns that are rounded before the rest of the matrix is updated; it does not change the result.
    act_order : bool
        Whether to begin with the columns of the largest inputs, so that most other columns can compensate for their
        errors.
    """

    damping: Annotated[float, Field(gt=0)] = 0.1
    block: Count = 128
    act_order: bool = True

    def round(self, weight: Float[Tensor, "o c"], quantizer: StaticQuantizer, evidence: Evidence) -> Codes:
        # Half precision would lose the small updates of later columns.
        weight = weight if weight.dtype == torch.float64 else weight.float()
        columns = weight.shape[1]
        order = torch.arange(columns, device=weight.device)
        if self.act_order:
            order = evidence.square_mean.to(weight.device).argsort(descending=True, stable=True)
        factor = inverse_factor(evidence, order, self.damping, weight.dtype)
        left = weight[:, order].T.contiguous()  # transposed, because columns are read and written
        rounded: list[Codes] = []
        for start in range(0, columns, self.block):
            end = min(start + self.block, columns)
            upper = factor.rows(start, end)
            block = left[start:end]
            errors = torch.empty_like(block)
            for i in range(end - start):
                column_quantizer = quantizer.columns(order[start + i][None])
                codes = column_quantizer.encode(block[i][:, None])
                # The error is that of the decoded codes: a simulation may differ from them in the last bit.
                value = column_quantizer.decode(codes).to(weight.dtype)[:, 0]
                rounded.append(codes)
                row = upper[i, i : end - start]
                errors[i] = (block[i] - value) / row[0]
                block[i + 1 :] -= torch.outer(row[1:], errors[i])
            left[end:] -= upper[:, end - start :].T @ errors
        return _in_order(rounded, order)


def _in_order(columns: Sequence[Codes], order: Integer[Tensor, " c"]) -> Codes:
    """Concatenate the codes of columns, which were rounded in `order`, in the order of the weight."""
    inverse = order.argsort().tolist()
    parts = [columns[place] for place in inverse]
    regions = [part.regions for part in parts if part.regions is not None]
    return Codes(torch.cat([part.codes for part in parts], 1), torch.cat(regions, 1) if regions else None)
