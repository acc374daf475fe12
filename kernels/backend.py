"""What integer execution asks of a machine: a few operations on codes, which every backend has."""

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
    """A linear layer that a backend has made ready.

    Attributes
    ----------
    weight : IntegerWeight
    outs : tuple of (Grid, int)
        Grids that outputs are written on, and how many outputs each; empty where they stay float.
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
        """Bytes of memory that the layer takes while it waits: codes, scales, zero points."""


class Backend(ABC):
    """Operations on codes, as one kind of machine computes them.

    Rows of matrices are tokens: residues, or pairs of residues. An operation on codes makes no float matrix of their
    size, unless its docstring says so. Functions in `protquant.kernels.reference` say what each operation gives; one
    with a body here is made of other operations, and a backend that fuses it gives the same.

    Attributes
    ----------
    name : str
    calls : Counter
        How often each operation has run, by what ran: `("linear", "onednn")`.
    """

    name: ClassVar[str]
    tile_rows: ClassVar[int] = 1
    """Of what rows of the pair in a tile are a multiple, where there are so many."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    @property
    def tile_tokens(self) -> int | None:
        """How many rows are best worked on at a time; None: all."""
        return None

    @property
    def sequence_tokens(self) -> int | None:
        """How many tokens of a language model are best worked on at a time; None: all."""
        return self.tile_tokens

    @property
    def update_dtype(self) -> torch.dtype:
        """Of what is rounded again, or added to a residual, and kept nowhere else."""
        return torch.float32

    @property
    @abstractmethod
    def kernel(self) -> str:
        """What multiplies here, in a few words for tables."""

    @abstractmethod
    def prepare(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation = "none",
        outs: Sequence[tuple[Grid, int]] = (),
    ) -> Linear:
        """Make a layer ready to read codes on `grid`, and to write on `outs`, if any."""

    @abstractmethod
    def open(self, layer: Linear) -> Linear:
        """The layer with its weight unpacked, for many calls in a row; drop it afterwards."""

    @abstractmethod
    def quantize(self, x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
        """Codes of a float matrix."""

    def outer_codes(self, q: Float[Tensor, "j d"], k: Float[Tensor, "i d"], grid: Grid | TokenGrid) -> Codes8:
        """Codes of products and differences of rows, [q_j k_i, q_j - k_i], one row for each i and j."""
        return self.quantize(torch.cat((q * k[:, None], q - k[:, None]), dim=-1).flatten(0, 1), grid)

    def normalized_codes(
        self,
        x: Float[Tensor, "m c"],
        gain: Float[Tensor, " c"] | None,
        bias: Float[Tensor, " c"] | None,
        eps: float,
        grid: Grid | TokenGrid,
    ) -> Codes8:
        """Codes of the rows after LayerNorm."""
        return self.quantize(F.layer_norm(x, x.shape[-1:], gain, bias, eps), grid)

    @abstractmethod
    def linear(
        self, x: Codes8, layer: Linear, dtype: torch.dtype = torch.float32, residual: Float[Tensor, "m n"] | None = None
    ) -> Float[Tensor, "m n"]:
        """`activation(x weight^T + bias)`; where `residual` is given it is added to that, in place."""

    @abstractmethod
    def linear_codes(self, x: Codes8, layer: Linear) -> Codes8:
        """The same on the grids of `layer.outs`; scale and zero are those of the first."""

    def perceptron_add_(
        self, x: Codes8, up: Linear, down: Linear, residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        """`residual += down(codes of up(x))`, in place; `up` writes on one grid, on which `down` reads."""
        return self.linear(self.linear_codes(x, up), down, residual=residual)

    @abstractmethod
    def gated_codes(self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], grid: Grid | TokenGrid) -> Codes8:
        """Codes of `sigmoid(gate(x)) * values`."""

    @abstractmethod
    def gated_add_(
        self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        """`residual += sigmoid(gate(x)) * values`, in place."""

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
        """Codes of `sigmoid(gate(x)) * proj(x) * mask`, channel by channel: an operand of a triangle multiplication.

        They go to `out[:, first : first + m / k]`.
        """

    @abstractmethod
    def channel_buffer(self, channels: int, length: int, device: torch.device) -> Integer[Tensor, "c i k"]:
        """An empty operand of a triangle multiplication."""

    def product_rows(self, channels: int, length: int) -> int:  # noqa: ARG002
        """How many rows of a triangle multiplication are best worked on at a time."""
        return length

    def kept_bytes(self, channels: int, heads: int, length: int) -> int:  # noqa: ARG002
        """Bytes that are kept from call to call, for a pair of so many channels, heads and residues."""
        return 0

    def opened_bytes(self, weights: Sequence[tuple[int, int]]) -> int:  # noqa: ARG002
        """Bytes that weights take beside their codes while all of them are open, by bits of a code and elements."""
        return 0

    @abstractmethod
    def triangle_product(
        self,
        left: Integer[Tensor, "c i k"],
        right: Integer[Tensor, "c j k"],
        grids: tuple[Grid, Grid],
        direction: Direction,
        rows: slice,
    ) -> Shaped[Tensor, "c i j"]:
        """Sum over k of left[i, k] right[j, k] (outgoing), or of left[k, i] right[k, j] (incoming), for `rows` of i.

        Products are summed as integers, exactly. Algorithms 11 and 12, line 4, of Jumper et al. 2021. Operands are in
        memory of `channel_buffer`.

        Returns
        -------
        Tensor, shape=(c, rows, j)
            Sums in steps of both grids, for `product_tokens`. It is valid until the next call: a backend may reuse the
            memory.
        """

    @abstractmethod
    def product_tokens(
        self, product: Shaped[Tensor, "c i j"], grids: tuple[Grid, Grid], rows: slice
    ) -> Float[Tensor, "ij c"]:
        """Values of some `rows` of a triangle product, token by token."""

    @abstractmethod
    def encode_bytes(self, x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
        """Bytes of a piecewise linear grid: how a residual is kept in a byte per element."""

    @abstractmethod
    def decode_bytes(self, codes: UInt8[Tensor, "..."], grid: ByteGrid) -> Float[Tensor, "..."]:
        """Values of such bytes, float32."""

    def attention_bias(
        self,
        bias: Float[Tensor, "h q k"],
        grids: tuple[Grid, Grid, Grid] | None,  # noqa: ARG002
    ) -> Float[Tensor, "h q k"]:
        """The bias as `attention` takes it, for many calls with the same."""
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
        """Softmax attention of sequences of `length` tokens: queries, keys and values side by side in the columns.

        Parameters
        ----------
        qkv : Codes8 or Tensor, shape=(b * length, 3 * heads * d)
            Codes on `grids`, or float where these are None.
        scale : float
            Logits are `scale * q k^T + bias`.
        bias : Tensor, shape=(h, q, k), optional
            As `attention_bias` gives it.
        mask : Tensor, shape=(b, length), optional
            False for keys that nobody attends to. What a row without any key gives is finite.
        """

    @abstractmethod
    def sequence_attention(
        self, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype | None = None
    ) -> SequenceAttention:
        """Return attention within packed sequences, as language models have it, ready for many calls.

        Parameters
        ----------
        grids : tuple of Grid or None
            Grids of queries, keys and values; None where one is in float.
        heads, channels : int
            Number of heads, and of channels of all heads together.
        dtype : torch.dtype, optional
            Type that probabilities and values are multiplied in, see `SequenceAttention`. By default `update_dtype`
            where all three have grids, and float32 where not.
        """
