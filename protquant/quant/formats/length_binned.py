"""Static ranges that depend on the length of the input: one quantizer for every bin of lengths."""

from collections.abc import Sequence

from torch import Tensor, nn

from protquant.quant.formats.base import Codes, Quantizer, StaticQuantizer
from protquant.quant.lengths import LengthBin, bin_edges, nearest_bin

__all__ = ["LengthBinnedQuantizer"]


class LengthBinnedQuantizer(Quantizer):
    """Uses the quantizer of the bin nearest to the length of its input, the size of the second-to-last axis.

    At every activation site of our models that axis has residues (or tokens, two more): `(..., length, channels)`, or
    for attention `(..., query, key)`. In a padded batch it has the length of the longest protein.

    Parameters
    ----------
    bins : sequence of LengthBin
        Bins in ascending order.
    quantizers : sequence of Quantizer
        One quantizer for each bin.
    """

    edges: tuple[int, ...]
    code_bits: int
    label: str

    def __init__(self, bins: Sequence[LengthBin], quantizers: Sequence[Quantizer]) -> None:
        super().__init__()
        if len(bins) != len(quantizers):
            raise ValueError(f"{len(quantizers)} quantizers do not fit {len(bins)} bins")
        self.edges = bin_edges(bins)
        self.label = ", ".join(map(str, bins))
        self.quantizers = nn.ModuleList(quantizers)
        self.code_bits = max(quantizer.code_bits for quantizer in quantizers)

    def of(self, length: int) -> Quantizer:
        """Return the quantizer for a length."""
        quantizer = self.quantizers[nearest_bin(self.edges, length)]
        assert isinstance(quantizer, Quantizer)
        return quantizer

    def freeze(self, x: Tensor) -> StaticQuantizer:
        return self.of(_length(x.shape)).freeze(x)

    def encode(self, x: Tensor) -> Codes:
        return self.of(_length(x.shape)).encode(x)

    def decode(self, encoded: Codes) -> Tensor:
        return self.of(_length(encoded.codes.shape)).decode(encoded)

    def dynamic_bits(self, shape: tuple[int, ...]) -> int:
        return self.of(_length(shape)).dynamic_bits(shape)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.of(_length(x.shape))(x)
        return y

    def extra_repr(self) -> str:
        return f"lengths {self.label}"


def _length(shape: tuple[int, ...]) -> int:
    return shape[-2] if len(shape) > 1 else 1
