"""Modules that a rotated model runs: what turns vectors, and the LayerNorm of vectors that were turned."""

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
        In the place of H, for sizes that no Hadamard matrix is known of.
    inverse : bool
        Whether to turn back: x -> x Q^T.
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
        """Whether all entries have the same size, so that no channel is favored."""
        return self.orthogonal is None

    @property
    def multiplications(self) -> int:
        """That turning one vector takes as it is done here; c log2 c additions would do for powers of two."""
        size = len(self.signs)
        if self.orthogonal is not None:
            return size**2
        return size * sum(len(factor) for factor in self._factors(self.signs) if len(factor) > 1)

    def copied(self, inverse: bool = False) -> "Rotation":
        """A copy, of tensors of its own; `inverse`: of the rotation that undoes this one."""
        orthogonal = None if self.orthogonal is None else self.orthogonal.clone()
        return Rotation(self.signs.clone(), orthogonal, self.inverse != inverse)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        signs = self.signs.to(x.dtype)
        return self._turn(x) * signs if self.inverse else self._turn(x * signs)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o c"]:
        # (x Q) (W Q)^T = x W^T.
        return self.forward(weight)

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return hadamard_factors(len(self.signs), x.dtype, x.device)

    def _turn(self, x: Tensor) -> Tensor:
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
    """Randomized Hadamard rotation, float64; a random orthogonal one where no Hadamard matrix is known."""
    signs = torch.randint(2, (size,), generator=generator, dtype=torch.float64) * 2 - 1
    if has_hadamard(size):
        return Rotation(signs)
    gauss = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return Rotation(signs, torch.linalg.qr(gauss).Q)


class CenterVectors(Storable):
    """Takes their mean over channels from vectors."""

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return x - x.mean(-1, keepdim=True)


def normalize_rotated(
    x: Float[Tensor, "... c"], mean_direction: Float[Tensor, " c"] | None, eps: float
) -> Float[Tensor, "... c"]:
    """LayerNorm, without gain and bias, of vectors that were rotated.

    Parameters
    ----------
    mean_direction : Tensor, shape=(c,), or None
        Of unit length: where the rotation has put (1, ..., 1). What lies along it is the mean over channels, and goes.
        None where the mean is gone before.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    if mean_direction is not None:
        direction = mean_direction.to(exact)
        # A sum and not a product of BLAS, whose last digit depends on where in memory a tensor lies: a model that is
        # saved and loaded gives the same to the bit.
        exact = exact - (exact * direction).sum(-1, keepdim=True) * direction
    return F.rms_norm(exact, exact.shape[-1:], eps=eps).to(x.dtype)


class RotatedNorm(Storable, nn.LayerNorm):
    """LayerNorm of a rotated stream, gain and bias moved to its readers; see `normalize_rotated`."""

    mean_direction: nn.Parameter | None

    def __init__(self, norm: nn.LayerNorm, mean_direction: Float[Tensor, " c"] | None) -> None:
        super().__init__(norm.normalized_shape, norm.eps, elementwise_affine=False)
        # A parameter, as the gain was, and counted as one; but not to be trained.
        frozen = None if mean_direction is None else nn.Parameter(mean_direction.clone(), requires_grad=False)
        self.register_parameter("mean_direction", frozen)
        self.train(norm.training)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return normalize_rotated(x, self.mean_direction, self.eps)
