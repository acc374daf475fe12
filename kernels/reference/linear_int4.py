"""A linear layer on packed four-bit weights: what every fast one must give."""

from typing import Literal, Unpack

import torch
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from protquant.kernels.packing import unpack_nibbles
from protquant.kernels.reference.dint import decode_dint
from protquant.kernels.reference.epilogue import Epilogue, finish
from protquant.kernels.reference.linear import check_rows

__all__ = ["WeightCodes", "check_linear_int4", "linear_int4", "weight_steps"]

WeightCodes = Literal["uniform", "dint"]


def linear_int4(
    x: Float[Tensor, "m k"] | Int8[Tensor, "m k"] | UInt8[Tensor, "m half"],
    weight: UInt8[Tensor, "n half"],
    weight_scale: Float[Tensor, "n g"],
    weight_zero: UInt8[Tensor, "n g"],
    *,
    channels: int,
    group_size: int | None = None,
    codes: WeightCodes = "uniform",
    x_scale: Float[Tensor, " s"] | None = None,
    x_zero: Integer[Tensor, " s"] | None = None,
    **after: Unpack[Epilogue],
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """`residual + gate * activation(x weight^T + bias)`, x of floats, or of codes of 8 or 4 bits.

    The sum over a group of channels is of integers, without error, where x has codes; groups are scaled and added in
    their order, in float32, and the sum of all is scaled by `x_scale`. Where x has floats, the sums are float32.

    Parameters
    ----------
    x : Tensor
        Shape (m, k) of int8 codes, or of float16, bfloat16 or float32; or shape (m, ceil(k / 2)) of uint8, packed codes
        0 to 15 as of `pack_nibbles`. Rows may be strided.
    weight : Tensor, shape=(n, ceil(k / 2)), dtype=uint8
        Codes 0 to 15, packed by `pack_nibbles`.
    weight_scale : Tensor, shape=(n, g)
        A step per output channel and group.
    weight_zero : Tensor, shape=(n, g), dtype=uint8
        The codes that mean 0.
    channels : int
        k: two lengths have the same number of bytes.
    group_size : int, optional
        Channels of a group, even; g = ceil(k / group_size). By default all channels are one group.
    codes : str
        "uniform", or "dint": codes 14 and 15 mean half a step to either side of 0, as of `decode_dint`.
    x_scale : Tensor, shape=(m,) or (1,)
        Steps of codes of x, by row or for all; None for floats.
    x_zero : Tensor of int32, shape as of x_scale, optional
        The codes that mean 0; None for 0.
    **after
        `Epilogue`: bias, activation, gate, residual, dtype; out_scale, out_zero, out_low, out_high.

    Raises
    ------
    ValueError
        For shapes, dtypes or options that do not fit.
    """
    group_size = check_linear_int4(x, weight, weight_scale, weight_zero, channels, group_size, codes, x_scale, x_zero)
    values = (unpack_nibbles(x, channels) if x.dtype == torch.uint8 else x).double()
    if x_zero is not None:
        values = values - x_zero.double()[:, None]
    steps = weight_steps(weight, weight_zero, channels, group_size, codes).double()
    y = values.new_zeros(len(x), len(weight), dtype=torch.float32)
    for group, start in enumerate(range(0, channels, group_size)):
        inside = slice(start, start + group_size)
        # float64 holds sums of products of codes exactly.
        total = values[:, inside] @ steps[:, inside].T
        y = y + total.float() * weight_scale[:, group].float()
    if x_scale is not None:
        y = y * x_scale.float()[:, None]
    return finish(y, **after)


def weight_steps(
    weight: UInt8[Tensor, "n half"],
    weight_zero: UInt8[Tensor, "n g"],
    channels: int,
    group_size: int,
    codes: WeightCodes,
) -> Float[Tensor, "n k"]:
    """How many steps every weight is from 0, float32: integers, and halves of dINT."""
    zero = weight_zero.int().repeat_interleave(group_size, dim=1)[:, :channels]
    unpacked = unpack_nibbles(weight, channels).int()
    if codes == "dint":
        return decode_dint(unpacked, torch.ones((), device=weight.device), zero, bits=4)
    return (unpacked - zero).float()


def check_linear_int4(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero: Tensor,
    channels: int,
    group_size: int | None,
    codes: WeightCodes,
    x_scale: Tensor | None,
    x_zero: Tensor | None,
) -> int:
    """Return the channels of a group; raise ValueError where the operands of `linear_int4` do not fit together."""
    if channels < 1:
        raise ValueError(f"a layer reads at least one channel, not {channels}")
    width = -(-channels // 2)
    if weight.dtype != torch.uint8 or weight.ndim != 2 or weight.shape[1] != width:
        raise ValueError(
            f"weight must be a matrix of uint8, {width} bytes for {channels} channels, not {tuple(weight.shape)} of "
            f"{weight.dtype}"
        )
    if x.dtype not in (torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.float32) or x.ndim != 2:
        raise ValueError(f"x must be a matrix of uint8, int8 or floats, not {tuple(x.shape)} of {x.dtype}")
    if x.shape[1] != (width if x.dtype == torch.uint8 else channels):
        raise ValueError(f"x of {x.dtype} has rows of {x.shape[1]}, which are not {channels} channels")
    if codes not in ("uniform", "dint"):
        raise ValueError(f"codes {codes!r} are neither uniform nor dint")
    if x.is_floating_point():
        if x_scale is not None or x_zero is not None:
            raise ValueError(f"x of {x.dtype} holds values, which take no scale and no zero point")
    elif x_scale is None:
        raise ValueError(f"x of {x.dtype} holds codes, which need x_scale")
    else:
        check_rows(len(x), x_scale, x_zero)
    size = channels if group_size is None else group_size
    if size < 1 or (size % 2 and size < channels):
        raise ValueError(f"group_size {size} is not even, so that a byte would belong to two groups")
    groups = -(-channels // size)
    for name, tensor in (("weight_scale", weight_scale), ("weight_zero", weight_zero)):
        if tuple(tensor.shape) != (len(weight), groups):
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, not ({len(weight)}, {groups}): {channels} channels are "
                f"{groups} groups of {size}"
            )
    return size
