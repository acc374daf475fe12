"""The operations on codes that integer execution needs, and that every backend implements."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from torch import Tensor

from protquant.kernels.operands import Activation, ByteGrid, Codes8, Direction, Grid, IntegerWeight, TokenGrid
from protquant.kernels.sequence_attention import OperandGrids, SequenceAttention

__all__ = ["Backend", "Linear"]


class Linear(ABC):
    """A linear layer that a backend has prepared.

    Attributes
    ----------
    weight : IntegerWeight
    outs : tuple of (Grid, int)
        Grids of the outputs' codes, each with its number of outputs; empty if outputs are floats.
    activation : str
    """

    def __init__(
        self, weight: IntegerWeight, activation: Activation = "none", outs: Sequence[tuple[Grid, int]] = ()
    ) -> None:
        if outs and sum(count for _, count in outs) != weight.out_features:
            raise ValueError(f"grids of {sum(count for _, count in outs)} outputs for {weight.out_features}")
        self.weight = weight
        self.activation: Activation = activation
        self.outs = tuple(outs)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""


class Backend(ABC):
    """Operations on codes for one kind of machine.

    Rows of matrices are tokens: residues, or pairs of residues. Operations do not decode all codes to floats at once,
    unless their docstring says so. The functions in `protquant.kernels.reference` define the results. A method with a
    body here combines other operations; a backend that fuses them returns the same result.

    Attributes
    ----------
    name : str
    calls : Counter
        Number of calls by operation and kernel, such as `("linear", "onednn")`.
    """

    name: ClassVar[str]
    tile_rows: ClassVar[int] = 1
    """The number of rows of the pair in a tile is a multiple of this, if there are enough rows."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    @property
    def tile_tokens(self) -> int | None:
        """Best number of rows to process at a time; None for all."""
        return None

    @property
    def sequence_tokens(self) -> int | None:
        """Best number of tokens of a language model to process at a time; None for all."""
        return self.tile_tokens

    @property
    def update_dtype(self) -> torch.dtype:
        """Type of intermediate values that are rounded later, or added to a residual, and not stored."""
        return torch.float32

    @property
    @abstractmethod
    def kernel(self) -> str:
        """Short description of the kernels, for tables."""

    @abstractmethod
    def prepare(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation = "none",
        outs: Sequence[tuple[Grid, int]] = (),
    ) -> Linear:
        """Return a layer that reads codes on `grid`, and writes codes on `outs`, if given."""

    @abstractmethod
    def unpacked(self, layer: Linear) -> Linear:
        """Return the layer with an unpacked weight, for many calls in a row; drop it afterwards."""

    @abstractmethod
    def quantize(self, x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
        """Return the codes of a float matrix."""

    def outer_codes(self, q: Float[Tensor, "j d"], k: Float[Tensor, "i d"], grid: Grid | TokenGrid) -> Codes8:
        """Return codes of products and differences of rows, [q_j k_i, q_j - k_i], one row for each i and j."""
        return self.quantize(torch.cat((q * k[:, None], q - k[:, None]), dim=-1).flatten(0, 1), grid)

    def normalized_codes(
        self,
        x: Float[Tensor, "m c"],
        gain: Float[Tensor, " c"] | None,
        bias: Float[Tensor, " c"] | None,
        eps: float,
        grid: Grid | TokenGrid,
    ) -> Codes8:
        """Return codes of the rows after LayerNorm."""
        return self.quantize(F.layer_norm(x, x.shape[-1:], gain, bias, eps), grid)

    @abstractmethod
    def linear(
        self, x: Codes8, layer: Linear, dtype: torch.dtype = torch.float32, residual: Float[Tensor, "m n"] | None = None
    ) -> Float[Tensor, "m n"]:
        """Return `activation(x weight^T + bias)`, or add it to `residual` in place, if given."""

    @abstractmethod
    def linear_codes(self, x: Codes8, layer: Linear) -> Codes8:
        """Return the codes of that on the grids of `layer.outs`; scale and zero point are of the first grid."""

    def perceptron_add_(
        self, x: Codes8, up: Linear, down: Linear, residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        """Compute `residual += down(codes of up(x))` in place; `down` reads codes on the one grid of `up`'s output."""
        return self.linear(self.linear_codes(x, up), down, residual=residual)

    @abstractmethod
    def gated_codes(self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], grid: Grid | TokenGrid) -> Codes8:
        """Return codes of `sigmoid(gate(x)) * values`."""

    @abstractmethod
    def gated_add_(
        self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        """Compute `residual += sigmoid(gate(x)) * values` in place."""

    @abstractmethod
    def gated_channels(
        self,
        x: Codes8,
        gate: Linear,
        proj: Linear,
        grid: Grid,
        mask: Bool[Tensor, " m"] | None,
        out: Integer[Tensor, "c i k"],
        first: int,
    ) -> None:
        """Write codes of `sigmoid(gate(x)) * proj(x) * mask` to `out[:, first : first + m / k]`, channel by channel.

        `out` is an operand of a triangle multiplication.
        """

    @abstractmethod
    def channel_buffer(self, channels: int, length: int, device: torch.device) -> Integer[Tensor, "c i k"]:
        """Return uninitialized memory for an operand of a triangle multiplication."""

    def product_rows(self, channels: int, length: int) -> int:  # noqa: ARG002
        """Best number of rows of a triangle multiplication to process at a time."""
        return length

    def kept_bytes(self, channels: int, heads: int, length: int) -> int:  # noqa: ARG002
        """Bytes of buffers that are reused from call to call, for this number of channels, heads and residues."""
        return 0

    def unpacked_bytes(self, weights: Sequence[tuple[int, int]]) -> int:  # noqa: ARG002
        """Extra bytes while all weights are unpacked; a weight is given by bits of a code and number of elements."""
        return 0

    @abstractmethod
    def triangle_product(
        self,
        left: Integer[Tensor, "c a b"],
        right: Integer[Tensor, "c d e"],
        grids: tuple[Grid, Grid],
        direction: Direction,
        rows: slice,
    ) -> Shaped[Tensor, "c i j"]:
        """Sum over k of left[i, k] right[j, k] (outgoing), or of left[k, i] right[k, j] (incoming), for `rows` of i.

        This is line 4 of Algorithms 11 and 12 of Jumper et al. 2021. Sums of products of codes are exact. Operands are
        buffers that `channel_buffer` returned.

        Returns
        -------
        Tensor, shape=(c, rows, j)
            Sums in units of the product of both scales, for `product_tokens`. They are valid until the next call: a
            backend may reuse the memory.
        """

    @abstractmethod
    def product_tokens(
        self, product: Shaped[Tensor, "c i j"], grids: tuple[Grid, Grid], rows: slice
    ) -> Float[Tensor, "ij c"]:
        """Return values of `rows` of a triangle product, token by token."""

    @abstractmethod
    def encode_bytes(self, x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
        """Return codes of one byte on a piecewise linear grid, such as those of a stored residual."""

    @abstractmethod
    def decode_bytes(self, codes: UInt8[Tensor, "..."], grid: ByteGrid) -> Float[Tensor, "..."]:
        """Return the float32 values of bytes from `encode_bytes`."""

    def attention_bias(
        self,
        bias: Float[Tensor, "h q k"],
        grids: tuple[Grid, Grid, Grid] | None,  # noqa: ARG002
    ) -> Float[Tensor, "h q k"]:
        """Return the bias in the form that `attention` takes, for many calls with one bias."""
        return bias

    @abstractmethod
    def attention(
        self,
        qkv: Codes8 | Float[Tensor, "m n"],
        grids: tuple[Grid, Grid, Grid] | None,
        heads: int,
        length: int,
        scale: float,
        bias: Float[Tensor, "h q k"] | None,
        mask: Bool[Tensor, "b k"] | None,
    ) -> Float[Tensor, "m hd"]:
        """Return softmax attention of sequences of `length` tokens.

        Parameters
        ----------
        qkv : Codes8 or Tensor, shape=(b * length, 3 * heads * d)
            Queries, keys and values side by side: codes on `grids`, or floats if these are None.
        scale : float
            Logits are `scale * q k^T + bias`.
        bias : Tensor, shape=(h, q, k), optional
            Result of `attention_bias`.
        mask : Tensor, shape=(b, length), optional
            False for keys that are left out. Rows with no valid key return finite, unspecified values.
        """

    @abstractmethod
    def sequence_attention(
        self, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype | None = None
    ) -> SequenceAttention:
        """Return an object that computes attention within packed sequences, as language models need it.

        Parameters
        ----------
        grids : tuple of Grid or None
            Grids of queries, keys and values; None where one is in float.
        heads, channels : int
            Number of heads, and number of channels of all heads together.
        dtype : torch.dtype, optional
            Type in which probabilities and values are multiplied, see `SequenceAttention`. The default is
            `update_dtype` if all three have grids, and float32 otherwise.
        """
