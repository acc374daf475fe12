"""Quantized twins of the modules that have sites; they simulate integer arithmetic in float."""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.decoded_weights import decoded_weights
from protquant.quant.formats import Codes, Quantizer, StaticQuantizer
from protquant.quant.packed_codes import PackedCodes
from protquant.quant.rotations import RotatedNorm, normalize_rotated
from protquant.quant.storable import Storable
from protquant.quant.transforms import TransformedLinear

__all__ = ["ActivationQuantizer", "CodedWeight", "QuantizedLayerNorm", "QuantizedLinear", "QuantizedRotatedNorm"]


class ActivationQuantizer(Storable):
    """Quantizes and dequantizes an activation; also the twin of a `Tap`.

    Parameters
    ----------
    site : str
        Name of the site, for messages.
    quantizer : Quantizer
        Frozen ranges are among its buffers, so that they are saved with the model.
    """

    site: str

    def __init__(self, site: str, quantizer: Quantizer) -> None:
        super().__init__()
        self.site = site
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        # The sum is one cheap pass, and is NaN if any value is NaN. (It may also be NaN because infinities cancel.)
        if torch.isnan(x.detach().sum()) and torch.isnan(x).any():
            raise ProtquantError(f"site {self.site}: the input has a NaN, which has no code")
        try:
            y: Tensor = self.quantizer(x)
        except ProtquantError as error:
            raise ProtquantError(f"site {self.site}: {error}") from None
        return y

    def extra_repr(self) -> str:
        return self.site


class CodedWeight(Storable):
    """A module whose weight is stored as packed codes, or in float if the recipe does not quantize it.

    Attributes
    ----------
    weight_quantizer : StaticQuantizer or None
        Decodes the codes; None if the weight is in float.
    """

    weight_quantizer: StaticQuantizer | None
    _codes: PackedCodes | None = None
    # The type that the module computes in, if there is no float weight to take it from.
    _dtype: torch.dtype = torch.float32

    def _hold(self, weight: Tensor | None, quantizer: StaticQuantizer | None, encoded: Codes | None) -> None:
        """Store a weight: with a quantizer as codes (`encoded`, or the nearest ones), otherwise in float."""
        self.weight_quantizer = quantizer
        if quantizer is None or weight is None:
            assert weight is None or isinstance(weight, nn.Parameter)
            self.hold_float(weight)
        else:
            values = weight.detach()
            encoded = quantizer.encode(values) if encoded is None else encoded
            self.hold_codes(PackedCodes.pack(encoded, quantizer.code_bits, values.dtype))

    def hold_float(self, weight: nn.Parameter | None) -> None:
        """Store a float weight, or none."""
        self._parameters["weight"] = weight

    def hold_codes(self, codes: PackedCodes) -> None:
        """Store these codes in place of the weight so far."""
        self._parameters.pop("weight", None)
        self._codes, self._dtype = codes, codes.values

    @property
    def packed_codes(self) -> PackedCodes | None:
        """The packed codes of the weight; None if it is in float."""
        return self._codes

    def weight_codes(self) -> Codes:
        """Return the integer codes of the weight.

        Raises
        ------
        ProtquantError
            If the weight is in float.
        """
        if self._codes is None:
            raise ProtquantError("this weight was left in float and has no codes")
        return self._codes.unpack()

    @property
    def weight(self) -> Tensor | None:
        """The weight in float: the parameter, or the decoded codes (which `decoded_weights` may cache)."""
        if self._codes is None:
            return self._parameters["weight"]
        known = decoded_weights.get(self)
        return decoded_weights.keep(self, self._decode(self._codes)) if known is None else known

    def float_weight(self) -> Tensor:
        """Return the weight in float, for layers that have a weight; see `weight`."""
        weight = self.weight
        assert weight is not None
        return weight

    def _decode(self, codes: PackedCodes) -> Tensor:
        assert self.weight_quantizer is not None
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # cached weights also serve calls outside of that mode
            # First to the type of the original weight, as in quantization, whose rounding is part of the result.
            return self.weight_quantizer.decode(codes.unpack()).to(codes.values).to(self._dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._codes is not None:
            self._codes = self._codes.apply(fn)
            self._dtype = fn(torch.empty(0, dtype=self._dtype)).dtype
            decoded_weights.forget(self)
        return self


class QuantizedLinear(CodedWeight):
    """Twin of an `nn.Linear` with a quantized weight, input, or both.

    Parameters
    ----------
    linear : nn.Linear
        The layer to replace. Its weight and bias are used; it is not changed.
    weight_quantizer : StaticQuantizer or None
        Quantizer of the weight; None leaves it in float.
    input_quantizer : ActivationQuantizer or None
        Quantizer of the input; None leaves it in float.
    codes : Codes, optional
        Codes of the weight on the grid of `weight_quantizer`; by default the nearest.

    Attributes
    ----------
    weight : Tensor, shape=(out, in)
        The parameter, or the decoded codes.
    transforms : nn.Sequential or None
        The transforms of a `TransformedLinear`, applied to the input before it is quantized.
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None
    input_quantizer: ActivationQuantizer | None
    transforms: nn.Sequential | None

    def __init__(
        self,
        linear: nn.Linear,
        weight_quantizer: StaticQuantizer | None = None,
        input_quantizer: ActivationQuantizer | None = None,
        codes: Codes | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._hold(linear.weight, weight_quantizer, codes)
        self.bias = linear.bias
        self.input_quantizer = input_quantizer
        self.transforms = linear.transforms if isinstance(linear, TransformedLinear) else None

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        if self.transforms is not None:
            x = self.transforms(x)
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        return F.linear(x, self.float_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}"


class QuantizedLayerNorm(CodedWeight):
    """Twin of an `nn.LayerNorm` with a quantized gain, input, or both; mean and variance are computed in float."""

    normalized_shape: tuple[int, ...]
    eps: float
    bias: nn.Parameter | None
    input_quantizer: ActivationQuantizer | None

    def __init__(
        self,
        norm: nn.LayerNorm,
        weight_quantizer: StaticQuantizer | None = None,
        input_quantizer: ActivationQuantizer | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = norm.normalized_shape, norm.eps
        self._hold(norm.weight if norm.elementwise_affine else None, weight_quantizer, None)
        self.bias = norm.bias
        self.input_quantizer = input_quantizer

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return self.normalize(x if self.input_quantizer is None else self.input_quantizer(x))

    def normalize(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """Return the float LayerNorm of `x`."""
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
