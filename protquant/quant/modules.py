"""Quantized twins of the modules that hold sites; they simulate, in float, what integers would give."""

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


class CodedWeight(Storable):
    """A module whose weight is held as packed codes, or in float where the recipe leaves it so.

    Attributes
    ----------
    weight_quantizer : StaticQuantizer or None
        Decodes the codes; None where the weight is in float.
    """

    weight_quantizer: StaticQuantizer | None
    _codes: PackedCodes | None = None
    # The type that the module computes in, where no float parameter of the weight says so.
    _dtype: torch.dtype = torch.float32

    def _hold(self, weight: Tensor | None, quantizer: StaticQuantizer | None, encoded: Codes | None) -> None:
        """Take over a float weight: as codes where there is a quantizer (`encoded`, or the nearest), else as it is."""
        self.weight_quantizer = quantizer
        if quantizer is None or weight is None:
            assert weight is None or isinstance(weight, nn.Parameter)
            self.hold_float(weight)
        else:
            values = weight.detach()
            encoded = quantizer.encode(values) if encoded is None else encoded
            self.hold_codes(PackedCodes.pack(encoded, quantizer.code_bits, values.dtype))

    def hold_float(self, weight: nn.Parameter | None) -> None:
        """Hold this weight, or none."""
        self._parameters["weight"] = weight

    def hold_codes(self, codes: PackedCodes) -> None:
        """Hold these codes in place of what was held before."""
        self._parameters.pop("weight", None)
        self._codes, self._dtype = codes, codes.values

    @property
    def packed_codes(self) -> PackedCodes | None:
        """The packed codes of the weight; None where it is in float."""
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
        """The weight in float: the parameter, or what the codes decode to (`decoded_weights` may keep that)."""
        if self._codes is None:
            return self._parameters["weight"]
        known = decoded_weights.get(self)
        return decoded_weights.keep(self, self._decode(self._codes)) if known is None else known

    def float_weight(self) -> Tensor:
        """Return the weight in float, see `weight`; for layers that have one."""
        weight = self.weight
        assert weight is not None
        return weight

    def _decode(self, codes: PackedCodes) -> Tensor:
        assert self.weight_quantizer is not None
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # a weight that is kept serves calls outside of that mode too
            # By way of the type that was rounded, whose own rounding is part of the weight.
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
        Whose weight and bias are taken over; it is not changed.
    weight_quantizer : StaticQuantizer or None
        Of the weight; None leaves it in float.
    input_quantizer : ActivationQuantizer or None
        Of the input; None leaves it in float.
    codes : Codes, optional
        Codes of the weight on the grid of `weight_quantizer`; by default the nearest.

    Attributes
    ----------
    weight : Tensor, shape=(out, in)
        The parameter, or the decoded codes.
    transforms : nn.Sequential or None
        What the input goes through before it is quantized, taken over from a `TransformedLinear`.
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
    """Twin of an `nn.LayerNorm` with a quantized gain, input, or both; the statistics are taken in float."""

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
