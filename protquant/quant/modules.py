"""Quantized twins of the modules that hold sites; they simulate, in float, what integers would give."""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.formats import Codes, Quantizer, StaticQuantizer
from protquant.quant.packed_codes import PackedCodes
from protquant.quant.rotations import RotatedNorm, normalize_rotated
from protquant.quant.storable import Storable
from protquant.quant.transforms import TransformedLinear

__all__ = ["ActivationQuantizer", "QuantizedLayerNorm", "QuantizedLinear", "QuantizedRotatedNorm"]


class ActivationQuantizer(Storable):
    """Quantizes and dequantizes what passes; also what a `Tap` becomes.

    Parameters
    ----------
    site : str
        Name of the site, for messages.
    quantizer : Quantizer
        With ranges frozen in its buffers, so that they are saved with the model.
    """

    site: str

    def __init__(self, site: str, quantizer: Quantizer) -> None:
        super().__init__()
        self.site = site
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        # The sum is one cheap pass, and is NaN wherever a value is. (It may also be where infinities cancel.)
        if torch.isnan(x.detach().sum()) and torch.isnan(x).any():
            raise ProtquantError(f"site {self.site}: the input has a NaN, which has no code")
        try:
            y: Tensor = self.quantizer(x)
        except ProtquantError as error:
            raise ProtquantError(f"site {self.site}: {error}") from None
        return y

    def extra_repr(self) -> str:
        return self.site


class QuantizedLinear(Storable):
    """Twin of an `nn.Linear` with a quantized weight, input, or both.

    Parameters
    ----------
    linear : nn.Linear
        Whose weight and bias are taken over; it is not changed.
    weight_quantizer : StaticQuantizer or None
        Of the weight; None leaves it in float.
    input_quantizer : ActivationQuantizer or None
        Of the input; None leaves it in float.

    Attributes
    ----------
    weight : Parameter, shape=(out, in)
        The decoded weight; on the meta device where only its codes are in memory (`keep_codes`).
    transforms : nn.Sequential or None
        What the input goes through before it is quantized, taken over from a `TransformedLinear`.
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None
    weight_quantizer: StaticQuantizer | None
    input_quantizer: ActivationQuantizer | None
    transforms: nn.Sequential | None
    _packed: PackedCodes | None = None

    def __init__(
        self,
        linear: nn.Linear,
        weight_quantizer: StaticQuantizer | None = None,
        input_quantizer: ActivationQuantizer | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = _decoded(linear.weight, weight_quantizer)
        self.bias = linear.bias
        self.weight_quantizer = weight_quantizer
        self.input_quantizer = input_quantizer
        self.transforms = linear.transforms if isinstance(linear, TransformedLinear) else None

    def weight_codes(self) -> Codes:
        """Integer codes of the weight, exact: those that are kept, or the decoded weight's, which lies on the grid."""
        if self._packed is not None:
            return self._packed.unpack()
        if self.weight_quantizer is None:
            raise ProtquantError("this weight was left in float and has no codes")
        return self.weight_quantizer.recode(self.weight)

    @property
    def packed_codes(self) -> PackedCodes | None:
        """Codes that are in memory instead of the weight; None where the weight is."""
        return self._packed

    def keep_codes(self, codes: PackedCodes) -> None:
        """Have these codes in memory and no weight, which is decoded whenever the layer is called."""
        self._packed = codes
        self.weight = nn.Parameter(torch.empty(codes.shape, dtype=codes.values, device="meta"), requires_grad=False)

    def expand(self) -> None:
        """Decode the weight for good, where only its codes are in memory."""
        if self._packed is not None:
            self.weight = nn.Parameter(self._decode(self._packed), requires_grad=False)
            self._packed = None

    def _decode(self, codes: PackedCodes) -> Tensor:
        assert self.weight_quantizer is not None
        # By way of the type that it was saved in, whose rounding is part of it.
        return self.weight_quantizer.decode(codes.unpack()).to(codes.values).to(self.weight.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        packed, weight = self._packed, self.weight
        if packed is None:
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # A weight without data has a type, and no device to be moved from.
        self._parameters["weight"] = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._packed = packed.apply(fn)
        dtype = fn(torch.empty(0, dtype=weight.dtype)).dtype
        self._parameters["weight"] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        return self

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        if self.transforms is not None:
            x = self.transforms(x)
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        return F.linear(x, self.weight if self._packed is None else self._decode(self._packed), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}"


class QuantizedLayerNorm(Storable):
    """Twin of an `nn.LayerNorm` with a quantized gain, input, or both; the statistics are taken in float."""

    normalized_shape: tuple[int, ...]
    eps: float
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    weight_quantizer: StaticQuantizer | None
    input_quantizer: ActivationQuantizer | None

    def __init__(
        self,
        norm: nn.LayerNorm,
        weight_quantizer: StaticQuantizer | None = None,
        input_quantizer: ActivationQuantizer | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = norm.normalized_shape, norm.eps
        self.weight = _decoded(norm.weight, weight_quantizer) if norm.elementwise_affine else None
        self.bias = norm.bias
        self.weight_quantizer = weight_quantizer
        self.input_quantizer = input_quantizer

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return self.normalize(x if self.input_quantizer is None else self.input_quantizer(x))

    def normalize(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """What the float module does."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class QuantizedRotatedNorm(QuantizedLayerNorm):
    """Twin of a `RotatedNorm`."""

    mean_direction: nn.Parameter | None

    def __init__(self, norm: RotatedNorm, input_quantizer: ActivationQuantizer | None = None) -> None:
        super().__init__(norm, None, input_quantizer)
        self.mean_direction = norm.mean_direction

    def normalize(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return normalize_rotated(x, self.mean_direction, self.eps)


def _decoded(weight: Tensor, quantizer: StaticQuantizer | None) -> nn.Parameter:
    if quantizer is None:
        assert isinstance(weight, nn.Parameter)
        return weight
    values = weight.detach()
    # Decoded, not simulated: the two may differ in the last bit, and codes are what is saved. A weight that a step has
    # rounded keeps the codes that it was given.
    decoded = quantizer.decode(quantizer.recode(values)).to(values.dtype)
    if not torch.equal(decoded, values):
        decoded = quantizer.decode(quantizer.encode(values)).to(values.dtype)
    return nn.Parameter(decoded, requires_grad=False)
