"""Attention on int8 codes: along rows of a triangle, along a sequence with a bias of the pair, in a language model."""

import torch
from jaxtyping import Bool, Float, Int8, Integer
from torch import Tensor

__all__ = ["MASKED_LOGIT", "attention_int8", "check_attention_int8"]

# The logit of a masked key, and the least that any key has. It is finite, so that where all keys are masked all count
# alike, as in the float modules.
MASKED_LOGIT = -1e9


def attention_int8(
    q: Int8[Tensor, "b h i d"],
    k: Int8[Tensor, "b h j d"],
    v: Int8[Tensor, "b h j d"],
    q_scale: Float[Tensor, "..."],
    k_scale: Float[Tensor, "..."],
    v_scale: Float[Tensor, "..."],
    *,
    q_zero: Integer[Tensor, ""] | None = None,
    k_zero: Integer[Tensor, ""] | None = None,
    v_zero: Integer[Tensor, ""] | None = None,
    bias: Float[Tensor, "#b #h #i #j"] | None = None,
    mask: Bool[Tensor, "#b j"] | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "b i h d"]:
    """`softmax(scale * q k^T + bias) v`, of decoded q, k and v.

    Products of q and k are summed as integers, without error; what follows is float32, rounded to `dtype` at the end.
    Where all keys of a row are masked, the output is the mean of all values, as in triangle attention of the float
    models; where there is no key at all, it is 0.

    Parameters
    ----------
    q, k, v : Tensor, shape=(b, h, i or j, d), dtype=int8
        Codes of queries, keys and values, strided in any way. In triangle attention b are the rows of the pair.
    q_scale, k_scale, v_scale : Tensor, shape=() or (b, h, i or j)
        One for all or one per token, positive; also what broadcasts to that, such as (h, 1) for one per head.
    q_zero, k_zero, v_zero : Tensor of int32, shape=(), optional
        The codes that mean 0; None for 0.
    bias : Tensor, shape=(b, h, i, j), optional
        Added to logits; axes of length 1 are shared. Minus infinity counts as `MASKED_LOGIT`.
    mask : Tensor of bool, shape=(b, j), optional
        False for keys that are left out.
    scale : float
        Factor of the logits, where it is not already in `q`.
    dtype : torch.dtype
        Of the output.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not fit.
    """
    check_attention_int8(q, k, v, q_scale, k_scale, v_scale, bias, mask)
    (b, h, i), j = q.shape[:3], k.shape[2]
    q_steps, k_steps, v_steps = (
        codes.double() if zero is None else codes.double() - zero
        for codes, zero in ((q, q_zero), (k, k_zero), (v, v_zero))
    )
    rows, columns = q_scale.float().expand(b, h, i), k_scale.float().expand(b, h, j)
    values = v_scale.float().expand(b, h, j)
    total = q_steps @ k_steps.transpose(-1, -2)
    logits = total.float() * (rows[..., None] * scale * columns[..., None, :])
    if bias is not None:
        logits = logits + bias.float()
    logits = logits.clamp(min=MASKED_LOGIT)
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None, :], MASKED_LOGIT)
    probs = logits.softmax(-1) if j else logits
    y = probs.double() @ (v_steps * values[..., None])
    return y.transpose(1, 2).to(dtype).contiguous()


def check_attention_int8(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_scale: Tensor,
    k_scale: Tensor,
    v_scale: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
) -> None:
    """Raise ValueError where the operands of `attention_int8` do not fit together."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dtype != torch.int8 or tensor.ndim != 4:
            raise ValueError(f"{name} must be (b, h, l, d) of int8, not {tuple(tensor.shape)} of {tensor.dtype}")
    b, h, i, d = q.shape
    j = k.shape[2]
    if k.shape != v.shape or tuple(k.shape) != (b, h, j, d):
        raise ValueError(f"queries {tuple(q.shape)}, keys {tuple(k.shape)}, values {tuple(v.shape)} do not fit")
    operands: list[tuple[str, Tensor, tuple[int, ...]]]
    operands = [("q_scale", q_scale, (b, h, i)), ("k_scale", k_scale, (b, h, j)), ("v_scale", v_scale, (b, h, j))]
    operands += [("bias", bias, (b, h, i, j))] if bias is not None else []
    operands += [("mask", mask, (b, j))] if mask is not None else []
    for name, tensor, shape in operands:
        given = tuple(tensor.shape)
        padded = (1,) * (len(shape) - len(given)) + given
        if len(given) > len(shape) or any(a not in (1, n) for a, n in zip(padded, shape, strict=True)):
            raise ValueError(f"{name} has the shape {given}, which does not broadcast to {shape}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"the mask is of {mask.dtype}, not bool")
