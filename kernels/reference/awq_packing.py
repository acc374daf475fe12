"""The order in which AWQ's kernels read four-bit weights (`pack_intweight` of TinyChat, Lin et al. 2024).

A thread that multiplies with tensor cores wants the weights of one instruction side by side, and takes two nibbles at a
time to two halves of a register. So the channels of a row are shuffled within runs of 32, and four rows are mixed.
"""

import torch
from jaxtyping import Int, Int16, UInt8
from torch import Tensor

__all__ = ["pack_awq", "unpack_awq"]

_ROWS = 4
_RUN = 32
_STRIDE = 64


def _channel_order(channels: int) -> Int[Tensor, " channels"]:
    """Which channel comes where in a row."""
    # Of 32 channels, pairs that lie 8 apart come together: 0 1 8 9 16 17 24 25, 2 3 10 11 ...
    run = torch.arange(_RUN).view(4, 4, 2).transpose(0, 1)
    # Of each 8 of these, the first of every pair, then the second: low and high halves of registers.
    run = run.reshape(4, 4, 2).transpose(1, 2).reshape(_RUN)
    return (torch.arange(0, channels, _RUN)[:, None] + run).view(channels)


def _order(rows: int, channels: int) -> Int[Tensor, " codes"]:
    """Which of the codes of a matrix, counted row by row, comes where; four in a row share an integer."""
    if rows % _ROWS or channels % _STRIDE:
        raise ValueError(f"a weight of {rows} x {channels} is no multiple of {_ROWS} rows x {_STRIDE} channels")
    index = torch.arange(rows)[:, None] * channels + _channel_order(channels)
    return index.view(rows // _ROWS, _ROWS, channels // _STRIDE, _STRIDE).transpose(1, 2).reshape(-1)


def pack_awq(codes: Int[Tensor, "n k"]) -> Int16[Tensor, "n//4 k"]:
    """Pack four-bit codes as AWQ's kernels read them.

    Parameters
    ----------
    codes : Tensor, shape=(n, k)
        Integers from 0 to 15 of a weight with n outputs, a multiple of 4, and k inputs, a multiple of 64.

    Returns
    -------
    Tensor, shape=(n / 4, k), dtype=int16
        Four codes each, the first in the lowest bits.

    Raises
    ------
    ValueError
        For a code that does not fit, or a shape that is no such multiple.
    """
    rows, channels = codes.shape
    order = _order(rows, channels)
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) > 15):
        raise ValueError(f"codes from {int(codes.min())} to {int(codes.max())} do not fit into 4 bits without a sign")
    nibbles = codes.reshape(-1)[order.to(codes.device)].int().view(rows // _ROWS, channels, 4)
    return (nibbles << 4 * torch.arange(4, device=codes.device)).sum(-1).to(torch.int16)


def unpack_awq(packed: Int16[Tensor, "n//4 k"]) -> UInt8[Tensor, "n k"]:
    """Codes that `pack_awq` packed."""
    rows, channels = packed.shape[0] * _ROWS, packed.shape[1]
    nibbles = (packed.int()[..., None] >> 4 * torch.arange(4, device=packed.device)) & 15
    codes = torch.empty(rows * channels, dtype=torch.uint8, device=packed.device)
    codes[_order(rows, channels).to(packed.device)] = nibbles.to(torch.uint8).reshape(-1)
    return codes.view(rows, channels)
