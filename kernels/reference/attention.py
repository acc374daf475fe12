"""Softmax attention, of decoded codes or of floats: what every fast one must give."""

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["MASKED_LOGIT", "attention"]

# The logit of a masked key, and the least that any key has. It is finite, so that where all keys are masked all count
# alike, as in the float modules.
MASKED_LOGIT = -1e9


def attention(
    q: Float[Tensor, "b h i d"],
    k: Float[Tensor, "b h j d"],
    v: Float[Tensor, "b h j d"],
    bias: Float[Tensor, "#b #h i j"] | None,
    mask: Bool[Tensor, "#b j"] | None,
    scale: float,
) -> Float[Tensor, "b i h d"]:
    """`softmax(scale * q k^T + bias) v`, float32.

    In triangle attention b are the rows of the pair. Axes of length 1 of the bias are shared; minus infinity counts as
    `MASKED_LOGIT`. The mask is False for keys that are left out. Where all keys of a row are masked, the output is the
    mean of all values, as in triangle attention of the float models; where there is no key at all, it is 0.
    """
    logits = q @ k.mT * scale
    if bias is not None:
        logits = (logits + bias.float()).clamp(min=MASKED_LOGIT)
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None, :], MASKED_LOGIT)
    return (logits.softmax(-1) @ v).transpose(1, 2)
