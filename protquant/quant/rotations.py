"""Modules of a rotated model: the rotation, and the LayerNorm of rotated vectors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from protquant.quant.hadamard import hadamard_factors, has_hadamard
from protquant.quant.storable import Storable
from protquant.quant.transforms import InputTransform

__all__ = ["CenterVectors", "RotatedNorm", "Rotation", "normalize_rotated", "random_rotation"]


class Rotation(InputTransform):
    """x -> x Q, with Q = diag(signs) H for a Hadamard matrix H over the root of its size, or another orthogonal matrix.

    Parameters
    ----------
    signs : Tensor, shape=(c,)
        +1 or -1.
    orthogonal : Tensor, shape=(c, c), or None
        Replaces diag(signs) H for sizes without a known Hadamard matrix.
    inverse : bool
        Whether to apply the inverse rotation, x -> x Q^T.
    """

    signs: Tensor
    orthogonal: Tensor | None
    inverse: bool

    def __init__(
        self, signs: Float[Tensor, " c"], orthogonal: Float[Tensor, "c c"] | None = None, inverse: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("signs", signs)
        self.register_buffer("orthogonal", orthogonal)
        self.inverse = inverse

    @property
    def is_hadamard(self) -> bool:
        """Whether Q is a Hadamard matrix, so that all its entries have the same magnitude."""
        return self.orthogonal is None

    @property
    def multiplications(self) -> int:
        """Number of multiplications to rotate one vector; for powers of two, c log2 c additions would suffice."""
        size = len(self.signs)
        if self.orthogonal is not None:
            return size**2
        return size * sum(len(factor) for factor in self._factors(self.signs) if len(factor) > 1)

    def copied(self, inverse: bool = False) -> "Rotation":
        """Return a copy that shares no tensors, or with `inverse` a copy of the inverse rotation."""
        orthogonal = None if self.orthogonal is None else self.orthogonal.clone()
        return Rotation(self.signs.clone(), orthogonal, self.inverse != inverse)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        signs = self.signs.to(x.dtype)
        return self._rotate(x) * signs if self.inverse else self._rotate(x * signs)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o c"]:
        # (x Q) (W Q)^T = x W^T.
        return self.forward(weight)

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return hadamard_factors(len(self.signs), x.dtype, x.device)

    def _rotate(self, x: Tensor) -> Tensor:
        if self.orthogonal is not None:
            matrix = self.orthogonal.to(x.dtype)
            return x @ (matrix.T if self.inverse else matrix)
        outer, inner = self._factors(x)
        if self.inverse:
            outer, inner = outer.T, inner.T
        if len(outer) == 1:
            return x @ inner
        x = x.unflatten(-1, (len(outer), len(inner))) @ inner
        return (x.transpose(-1, -2) @ outer).transpose(-1, -2).flatten(-2)

    def extra_repr(self) -> str:
        kind = "Hadamard" if self.is_hadamard else "random orthogonal"
        return f"{len(self.signs)}, {kind}{', inverse' if self.inverse else ''}"


def random_rotation(size: int, generator: torch.Generator) -> Rotation:
    """Return a randomized Hadamard rotation in float64, or a random orthogonal one if no Hadamard matrix is known."""
    signs = torch.randint(2, (size,), generator=generator, dtype=torch.float64) * 2 - 1
    if has_hadamard(size):
        return Rotation(signs)
    gauss = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return Rotation(signs, torch.linalg.qr(gauss).Q)


class CenterVectors(Storable):
    """Subtracts from vectors their mean over channels."""

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return x - x.mean(-1, keepdim=True)


def normalize_rotated(
    x: Float[Tensor, "... c"], mean_direction: Float[Tensor, " c"] | None, eps: float
) -> Float[Tensor, "... c"]:
    """Return the LayerNorm, without gain and bias, of rotated vectors.

    Parameters
    ----------
    mean_direction : Tensor, shape=(c,), or None
        The rotated direction of (1, ..., 1), of unit length. The component along it is the mean over channels, and is
        subtracted. None if the mean was subtracted before.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    if mean_direction is not None:
        direction = mean_direction.to(exact)
        # Not a BLAS product, whose last digit depends on memory alignment: a saved and loaded model gives the same
        # bits.
        exact = exact - (exact * direction).sum(-1, keepdim=True) * direction
    return F.rms_norm(exact, exact.shape[-1:], eps=eps).to(x.dtype)


class RotatedNorm(Storable, nn.LayerNorm):
    """LayerNorm of a rotated stream, whose gain and bias are folded into its readers; see `normalize_rotated`."""

    mean_direction: nn.Parameter | None

    def __init__(self, norm: nn.LayerNorm, mean_direction: Float[Tensor, " c"] | None) -> None:
        super().__init__(norm.normalized_shape, norm.eps, elementwise_affine=False)
        # A parameter, so that reports count its bytes as they counted the gain; it is not trained.
        frozen = None if mean_direction is None else nn.Parameter(mean_direction.clone(), requires_grad=False)
        self.register_parameter("mean_direction", frozen)
        self.train(norm.training)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return normalize_rotated(x, self.mean_direction, self.eps)
