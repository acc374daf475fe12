"""Sites: the named tensors of a model that can be quantized.

Models mark sites (by a `Tap` where no module boundary exists) and `quant` finds them; neither imports the other.
A site's name is the path of its module plus, for modules that hold several tensors, the tensor:

=================  =========================================  ====================================
kind               name                                       the tensor
=================  =========================================  ====================================
`linear_weight`    `lm.layers.3.attn.q_proj.weight`           weight of an `nn.Linear`, (out, in)
`linear_input`     `lm.layers.3.attn.q_proj.input`            input of that `nn.Linear`, (..., in)
`norm_gain`        `lm.layers.3.attn_norm.weight`             gain of an `nn.LayerNorm`, (c,)
`norm_input`       `lm.layers.3.attn_norm.input`              input of that `nn.LayerNorm`, (..., c)
`softmax_input`    `lm.layers.3.attn.logits`                  attention logits, (..., query, key)
`softmax_output`   `lm.layers.3.attn.probs`                   attention probabilities
`matmul_operand`   `lm.layers.3.attn.q`                       operand of a product of activations
`residual`         `trunk.blocks.3.pair_residual.tri_mul_out` pair representation after an update
=================  =========================================  ====================================

Frames, torsions and the points of invariant point attention are coordinates. They are not sites and stay in float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

__all__ = ["ACTIVATION_KINDS", "KINDS", "WEIGHT_KINDS", "Kind", "Site", "Tap", "find_sites", "tap_logits"]

Kind = Literal[
    "linear_weight",
    "linear_input",
    "norm_gain",
    "norm_input",
    "softmax_input",
    "softmax_output",
    "matmul_operand",
    "residual",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
WEIGHT_KINDS: tuple[Kind, ...] = ("linear_weight", "norm_gain")
ACTIVATION_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in WEIGHT_KINDS)


class Tap(nn.Identity):
    """Identity module that makes an intermediate tensor a site.

    Parameters
    ----------
    kind : Kind
        Kind of the tensor: `softmax_input`, `softmax_output`, `matmul_operand` or `residual`.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind: Kind = kind


def tap_logits(tap: Callable[[Tensor], Tensor], logits: Tensor, valid: Tensor) -> Tensor:
    """Pass attention logits through their tap, with zeros in place of padding.

    Parameters
    ----------
    logits : Tensor, shape=(..., query, key)
    valid : Tensor, dtype=bool
        False for padded keys; it broadcasts against `logits`. A quantizer at the tap sees zeros there. They do not
        widen its range, because every range contains zero.
    """
    # The values of a meta tensor are unknown: assume that some keys are padded.
    if not isinstance(tap, Tap) and (valid.is_meta or not valid.all()):
        logits = logits.masked_fill(~valid, 0)
    return tap(logits)


@dataclass(frozen=True)
class Site:
    """A named tensor: `module` is the path of the module that holds or receives it."""

    name: str
    kind: Kind
    module: str

    @property
    def is_weight(self) -> bool:
        """Whether the site is a parameter and not an activation."""
        return self.kind in WEIGHT_KINDS


def find_sites(model: nn.Module) -> Iterator[Site]:
    """Yield every site of `model`, in the order of its modules."""
    for path, module in model.named_modules():
        if isinstance(module, Tap):
            yield Site(path, module.kind, path)
        elif isinstance(module, nn.Linear):
            yield Site(f"{path}.weight", "linear_weight", path)
            yield Site(f"{path}.input", "linear_input", path)
        elif isinstance(module, nn.LayerNorm):
            yield Site(f"{path}.weight", "norm_gain", path)
            yield Site(f"{path}.input", "norm_input", path)
