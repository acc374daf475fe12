"""Int8 codes of the rows of a matrix, with one scale for all rows, or one that each row (token) computes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid, TokenGrid
from protquant.kernels.reference.uniform import encode_uniform, uniform_grid

__all__ = ["quantize"]


def quantize(x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
    """Return codes of `x`, which is finite, on the signed form of a fixed grid, or on `uniform_grid` of each row.

    Values outside of a fixed grid get its nearest end. Unsigned codes of eight bits on a row's own grid are moved by
    -128, together with their zero point.
    """
    if isinstance(grid, Grid):
        grid = grid.signed
        scale = torch.tensor([grid.scale], device=x.device)
        zero = torch.tensor([grid.zero], dtype=torch.int32, device=x.device)
        return Codes8(encode_uniform(x, scale, zero, grid.low, grid.high).to(torch.int8), scale, zero)
    low, high = F.pad(x, (0, 1)).aminmax(dim=-1, keepdim=True)  # an empty row counts as a row of 0
    scale, zero_point, code_low, code_high = uniform_grid(low, high, grid.bits, grid.symmetric)
    zero = torch.zeros_like(scale, dtype=torch.int32) if zero_point is None else zero_point
    move = 128 if code_high > 127 else 0
    codes = encode_uniform(x, scale, zero, code_low, code_high).short() - move
    return Codes8(codes.to(torch.int8), scale[:, 0], zero[:, 0] - move)
