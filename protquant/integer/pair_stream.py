"""The pair representation between updates: rows that are read as floats, and kept in what the recipe says.

In float32 it is what the float model has. In bytes it takes a quarter: what is read is decoded, what is written is
encoded, a few rows at a time, and nothing of its size is ever float.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from protquant.kernels.backend import Backend
from protquant.kernels.operands import ByteGrid
from protquant.quant.formats.bfloat16 import BFloat16Quantizer
from protquant.quant.formats.tailed import TailedQuantizer
from protquant.quant.formats.uniform import UniformQuantizer
from protquant.quant.modules import ActivationQuantizer
from protquant.sites import Tap

__all__ = ["PairCodec", "PairRows", "PairStream", "SimulatedCodec", "pair_codec"]


class PairCodec(ABC):
    """How rows are kept."""

    @property
    @abstractmethod
    def what(self) -> str:
        """In a few words, for tables."""

    @abstractmethod
    def encode(self, rows: Float[Tensor, "i j c"]) -> Shaped[Tensor, "i j c"]:
        """What is kept of rows."""

    @abstractmethod
    def decode(self, kept: Shaped[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        """Rows, in float32 where they were kept in less."""


@dataclass(frozen=True)
class FloatCodec(PairCodec):
    """Rows in a floating-point type."""

    dtype: torch.dtype

    @property
    def what(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def encode(self, rows: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return rows.to(self.dtype)

    def decode(self, kept: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return kept.float() if kept.dtype == torch.bfloat16 else kept


@dataclass(frozen=True)
class ByteCodec(PairCodec):
    """Rows in bytes of a piecewise linear, or uniform, grid."""

    backend: Backend
    grid: ByteGrid

    @property
    def what(self) -> str:
        return "one byte per element"

    def encode(self, rows: Float[Tensor, "i j c"]) -> Shaped[Tensor, "i j c"]:
        return self.backend.encode_bytes(rows, self.grid)

    def decode(self, kept: Shaped[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return self.backend.decode_bytes(kept, self.grid)


@dataclass(frozen=True, eq=False)
class SimulatedCodec(PairCodec):
    """Rows in float, but rounded to a format that nothing here keeps in codes."""

    quantizer: ActivationQuantizer

    @property
    def what(self) -> str:
        return "float, rounded to its format"

    def encode(self, rows: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        rounded: Tensor = self.quantizer(rows)
        return rounded

    def decode(self, kept: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return kept.clone()


def pair_codec(tap: nn.Module, backend: Backend) -> PairCodec | None:
    """How the tap's format is kept; None where it has none."""
    if isinstance(tap, Tap):
        return None
    assert isinstance(tap, ActivationQuantizer)
    quantizer = tap.quantizer
    if isinstance(quantizer, BFloat16Quantizer):
        return FloatCodec(torch.bfloat16)
    if isinstance(quantizer, TailedQuantizer) and quantizer.code_bits <= 8:
        return ByteCodec(backend, ByteGrid(*quantizer.grid))
    if isinstance(quantizer, UniformQuantizer) and quantizer.code_bits <= 8 and quantizer.scale.numel() == 1:
        zero = 0 if quantizer.zero_point is None else int(quantizer.zero_point)
        low, high = quantizer.codes.tolist()
        return ByteCodec(backend, ByteGrid(float(quantizer.scale), zero, low, high, 0.0, 0.0, 0))
    return SimulatedCodec(tap)


class PairStream:
    """A pair representation, shape (b, i, j, c), between `starts` and `ends` of updates.

    Parameters
    ----------
    pair : Tensor, shape=(b, i, j, c)
        Float; updated in place where it stays float.
    """

    def __init__(self, pair: Float[Tensor, "b i j c"]) -> None:
        self._kept: Tensor = pair.contiguous()
        self._codec: PairCodec = FloatCodec(pair.dtype)
        self._next: Tensor = self._kept
        self._next_codec: PairCodec = self._codec

    @property
    def shape(self) -> torch.Size:
        """(b, i, j, c)."""
        return self._kept.shape

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self._kept.device

    @property
    def nbytes(self) -> int:
        """Bytes that it takes now."""
        return self._kept.numel() * self._kept.element_size()

    def starts(self, codec: PairCodec | None) -> list["PairRows"]:
        """Begin an update after which rows are kept by `codec` (None: as they are); one view per protein."""
        self._next_codec = self._codec if codec is None else codec
        if not (isinstance(self._next_codec, FloatCodec) and self._next_codec == self._codec):
            element = self._next_codec.encode(self._kept.new_zeros(1, 1, 1, dtype=torch.float32))
            # Every row is read before it is written, so codes can take the place of codes.
            if element.dtype != self._kept.dtype:
                self._next = torch.empty_like(self._kept, dtype=element.dtype)
        return [PairRows(self, index) for index in range(len(self._kept))]

    def ends(self) -> None:
        """Every row has been written."""
        self._kept, self._codec = self._next, self._next_codec

    def floats(self) -> Float[Tensor, "b i j c"]:
        """All of it, in float."""
        kept = self._kept.flatten(0, 1)
        if isinstance(self._codec, FloatCodec):
            return self._codec.decode(kept).view(self.shape)
        if kept.device.type != "cpu":
            return self._codec.decode(kept).view(self.shape)
        # A row at a time: what decoding needs beside it on a CPU is several times as large.
        floats = torch.empty(kept.shape, dtype=torch.float32, device=kept.device)
        for row, codes in zip(floats.split(1), kept.split(1), strict=True):
            row.copy_(self._codec.decode(codes))
        return floats.view(self.shape)

    def put(self, pair: Float[Tensor, "b i j c"], codec: PairCodec | None) -> None:
        """Keep another pair in place of this one."""
        for index, rows in enumerate(self.starts(codec)):
            rows.write(slice(0, pair.shape[1]), pair[index], other=True)
        self.ends()


@dataclass(frozen=True)
class PairRows:
    """The rows of one protein's pair, or its columns where `turned`."""

    stream: PairStream
    index: int
    turned: bool = False

    def __len__(self) -> int:
        return self.stream.shape[1]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.stream.device

    def turn(self) -> "PairRows":
        """The same with rows for columns."""
        return PairRows(self.stream, self.index, not self.turned)

    def _of(self, pair: Tensor, rows: slice) -> Tensor:
        return pair[self.index, :, rows].transpose(0, 1) if self.turned else pair[self.index, rows]

    def read(self, rows: slice) -> Float[Tensor, "i j c"]:
        """Some rows in float, contiguous; what is added to them is lost, or not, until they are written."""
        return self.stream._codec.decode(self._of(self.stream._kept, rows)).contiguous()  # noqa: SLF001

    def write(self, rows: slice, values: Float[Tensor, "i j c"], *, other: bool = False) -> None:
        """Keep these rows, which `read` gave and which were changed in place, or `other` ones."""
        target = self._of(self.stream._next, rows)  # noqa: SLF001
        kept = isinstance(self.stream._next_codec, FloatCodec)  # noqa: SLF001
        if other or not kept or target.data_ptr() != values.data_ptr():
            target.copy_(self.stream._next_codec.encode(values))  # noqa: SLF001
