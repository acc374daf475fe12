"""The definition of softmax attention, on decoded codes or on floats."""

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["MASKED_LOGIT", "attention"]

# Logit of a masked key, and lower limit of all logits. It is finite, so that keys have equal weights if all of them are
# masked, as in the float modules.
MASKED_LOGIT = -1e9


def attention(
    q: Float[Tensor, "b h i d"],
    k: Float[Tensor, "b h j d"],
    v: Float[Tensor, "b h j d"],
    bias: Float[Tensor, "#b #h i j"] | None,
    mask: Bool[Tensor, "#b j"] | None,
    scale: float,
) -> Float[Tensor, "b i h d"]:
    """Return `softmax(scale * q k^T + bias) v`, float32.

    In triangle attention, b is the axis of the rows of the pair. Axes of length 1 of the bias are broadcast; minus
    infinity counts as `MASKED_LOGIT`. The mask is False for keys that are left out. If all keys of a row are masked,
    the output is the mean of all values, as in triangle attention of the float models; without any keys, it is 0.
    """
    logits = q @ k.mT * scale
    if bias is not None:
        logits = (logits + bias.float()).clamp(min=MASKED_LOGIT)
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None, :], MASKED_LOGIT)
    return (logits.softmax(-1) @ v).transpose(1, 2)
