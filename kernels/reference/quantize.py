"""Int8 codes of the rows of a matrix, with one scale for all or one per row (token) taken from the row itself."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid, TokenGrid
from protquant.kernels.reference.uniform import encode_uniform, uniform_grid

__all__ = ["quantize"]


def quantize(x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
    """Codes of `x`, finite, on the signed form of a frozen grid, or on a grid that each row makes (`uniform_grid`).

    What lies outside of a frozen grid goes to its nearest end. Codes of a row's own grid that would end at 255 are
    moved by 128, as their zero point is.
    """
    if isinstance(grid, Grid):
        grid = grid.signed
        scale = torch.tensor([grid.scale], device=x.device)
        zero = torch.tensor([grid.zero], dtype=torch.int32, device=x.device)
        return Codes8(encode_uniform(x, scale, zero, grid.low, grid.high).to(torch.int8), scale, zero)
    low, high = F.pad(x, (0, 1)).aminmax(dim=-1, keepdim=True)  # rows without channels hold a 0
    scale, zero_point, code_low, code_high = uniform_grid(low, high, grid.bits, grid.symmetric)
    zero = torch.zeros_like(scale, dtype=torch.int32) if zero_point is None else zero_point
    move = 128 if code_high > 127 else 0
    codes = encode_uniform(x, scale, zero, code_low, code_high).short() - move
    return Codes8(codes.to(torch.int8), scale[:, 0], zero[:, 0] - move)
