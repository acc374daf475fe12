"""The pair representation between updates: rows are read as floats, and stored in the format of the recipe.

Stored in float32, it is the pair of the float model. Stored in bytes, it takes a quarter of that memory: a few rows at
a time are decoded for reading and encoded for writing, so that no float tensor of the whole pair exists.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

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
    """A format in which rows of the pair are stored."""

    @property
    @abstractmethod
    def what(self) -> str:
        """Short name of the format, for tables."""

    @abstractmethod
    def encode(self, rows: Float[Tensor, "i j c"]) -> Shaped[Tensor, "i j c"]:
        """Return rows in the stored format."""

    @abstractmethod
    def decode(self, stored: Shaped[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        """Return rows as floats of at least 32 bits."""


@dataclass(frozen=True)
class FloatCodec(PairCodec):
    """Rows in a floating-point type."""

    dtype: torch.dtype

    @property
    def what(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def encode(self, rows: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return rows.to(self.dtype)

    def decode(self, stored: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return stored.float() if stored.dtype == torch.bfloat16 else stored


@dataclass(frozen=True)
class ByteCodec(PairCodec):
    """Rows in bytes on a piecewise linear or uniform grid."""

    backend: Backend
    grid: ByteGrid

    @property
    def what(self) -> str:
        return "one byte per element"

    def encode(self, rows: Float[Tensor, "i j c"]) -> Shaped[Tensor, "i j c"]:
        return self.backend.encode_bytes(rows, self.grid)

    def decode(self, stored: Shaped[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return self.backend.decode_bytes(stored, self.grid)


@dataclass(frozen=True, eq=False)
class SimulatedCodec(PairCodec):
    """Rows in float, rounded to a format without a codec of one byte."""

    quantizer: ActivationQuantizer

    @property
    def what(self) -> str:
        return "float, rounded to its format"

    def encode(self, rows: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        rounded: Tensor = self.quantizer(rows)
        return rounded

    def decode(self, stored: Float[Tensor, "i j c"]) -> Float[Tensor, "i j c"]:
        return stored.clone()


def pair_codec(tap: nn.Module, backend: Backend) -> PairCodec | None:
    """Return the codec for the format of a tap; None if the tap is in float."""
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
    """A pair representation, shape (b, i, j, c); an update changes it between `begin` and `commit`.

    Parameters
    ----------
    pair : Tensor, shape=(b, i, j, c)
        Floats; they are updated in place as long as the format does not change.
    """

    def __init__(self, pair: Float[Tensor, "b i j c"]) -> None:
        self._stored: Tensor = pair.contiguous()
        self._codec: PairCodec = FloatCodec(pair.dtype)
        self._next: Tensor = self._stored
        self._next_codec: PairCodec = self._codec

    @property
    def shape(self) -> torch.Size:
        """Shape (b, i, j, c)."""
        return self._stored.shape

    @property
    def device(self) -> torch.device:
        """Device of the stored pair."""
        return self._stored.device

    @property
    def nbytes(self) -> int:
        """Bytes that the stored pair takes now."""
        return self._stored.numel() * self._stored.element_size()

    def begin(self, codec: PairCodec | None) -> list["PairRows"]:
        """Begin an update that stores the pair by `codec` (None for the same as before); return a view per protein."""
        self._next_codec = self._codec if codec is None else codec
        if not (isinstance(self._next_codec, FloatCodec) and self._next_codec == self._codec):
            element = self._next_codec.encode(self._stored.new_zeros(1, 1, 1, dtype=torch.float32))
            # Every row is read before it is written, so new codes can overwrite old ones.
            if element.dtype != self._stored.dtype:
                self._next = torch.empty_like(self._stored, dtype=element.dtype)
        return [
            PairRows(stored, self._codec, target, self._next_codec)
            for stored, target in zip(self._stored, self._next, strict=True)
        ]

    def commit(self) -> None:
        """End an update: every row has been written."""
        self._stored, self._codec = self._next, self._next_codec

    def floats(self) -> Float[Tensor, "b i j c"]:
        """Return the whole pair as floats: the stored tensor if that is float32, else a copy."""
        stored = self._stored.flatten(0, 1)
        if isinstance(self._codec, FloatCodec) or stored.device.type != "cpu":
            return self._codec.decode(stored).view(self.shape)
        # A row at a time: on a CPU decoding needs several times the memory of its result.
        floats = torch.empty(stored.shape, dtype=torch.float32, device=stored.device)
        for row, codes in zip(floats.split(1), stored.split(1), strict=True):
            row.copy_(self._codec.decode(codes))
        return floats.view(self.shape)

    def put(self, pair: Float[Tensor, "b i j c"], codec: PairCodec | None) -> None:
        """Store another pair in place of this one."""
        for rows, values in zip(self.begin(codec), pair, strict=True):
            rows.write(slice(0, len(values)), values)
        self.commit()


@dataclass(frozen=True, eq=False)
class PairRows:
    """The rows of one protein's pair during an update; its columns, if `is_transposed`.

    Attributes
    ----------
    stored, target : Tensor, shape=(i, j, c)
        Memory to read from and to write to; both may be the same.
    codec, target_codec : PairCodec
    """

    stored: Shaped[Tensor, "i j c"]
    codec: PairCodec
    target: Shaped[Tensor, "i j c"]
    target_codec: PairCodec
    is_transposed: bool = False

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def device(self) -> torch.device:
        """Device of the stored rows."""
        return self.stored.device

    def transposed(self) -> "PairRows":
        """Return a view with columns in place of rows."""
        return replace(self, is_transposed=not self.is_transposed)

    def _view(self, pair: Shaped[Tensor, "i j c"], rows: slice) -> Shaped[Tensor, "r j c"]:
        return pair[:, rows].transpose(0, 1) if self.is_transposed else pair[rows]

    def read(self, rows: slice) -> Float[Tensor, "r j c"]:
        """Return rows in float, contiguous; changes to them reach the stream only through `write`."""
        return self.codec.decode(self._view(self.stored, rows)).contiguous()

    def write(self, rows: slice, values: Float[Tensor, "r j c"]) -> None:
        """Store values in these rows, without a copy if `values` are the stored memory, which `read` may return."""
        target = self._view(self.target, rows)
        if not isinstance(self.target_codec, FloatCodec) or target.data_ptr() != values.data_ptr():
            target.copy_(self.target_codec.encode(values))
