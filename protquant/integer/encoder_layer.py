"""A layer of the language model on integers, over packed sequences."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from protquant.integer.linear_twin import PartRow, linear_twin
from protquant.integer.norm import is_plain
from protquant.integer.operands import NoIntegerKernelError
from protquant.integer.packed_sequences import SequenceTile
from protquant.integer.sequence_attention import IntegerSelfAttention
from protquant.integer.transition import Perceptron
from protquant.kernels.backend import Backend
from protquant.models.esm2 import EncoderLayer, FeedForward

__all__ = ["IntegerEncoderLayer"]


class IntegerEncoderLayer(nn.Module):
    """Twin of a quantized `EncoderLayer`, which updates its rows in place.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Of attention, see `IntegerSelfAttention`.
    rows : list of tuple
        Is told what runs.
    """

    def __init__(
        self, layer: EncoderLayer, backend: Backend, path: str, dtype: torch.dtype | None, rows: list[PartRow]
    ) -> None:
        super().__init__()
        self.backend = backend
        self.attn_norm, self.ffn_norm = layer.attn_norm, layer.ffn_norm
        self.attn = IntegerSelfAttention(layer.attn, backend, f"{path}.attn", dtype, rows)
        self.ffn: Perceptron | _PerceptronInParts
        try:
            self.ffn = Perceptron(layer.ffn, backend, f"{path}.ffn", "gelu")
            rows += [(f"{path}.ffn.{name}", "integer", backend.kernel) for name in ("up_proj", "down_proj")]
        except NoIntegerKernelError:
            self.ffn = _PerceptronInParts(layer.ffn, backend, f"{path}.ffn", rows)

    @property
    def is_recordable(self) -> bool:
        """Whether nothing in the layer waits for the device, as parts that are simulated do."""
        on_integers = self.attn.is_recordable and isinstance(self.ffn, Perceptron)
        return on_integers and is_plain(self.attn_norm) and is_plain(self.ffn_norm)

    def forward(
        self,
        x: Float[Tensor, "t c"],
        tiles: Sequence[SequenceTile],
        turns: Complex[Tensor, "t p"],
        maps: list[Float[Tensor, "h n n"]] | None = None,
    ) -> None:
        """Update all rows, tile by tile; see `IntegerSelfAttention.add_to_`."""
        attn, ffn = self.attn.opened(), self.ffn.opened()
        for tile in tiles:
            rows = x[tile.rows]
            attn.add_to_(rows, self.attn_norm, tile, turns[tile.rows], maps)
            for some in rows.split(self.backend.tile_tokens or len(rows)):
                ffn.add_to_(some, self.ffn_norm)


class _PerceptronInParts(nn.Module):
    """A feed-forward network whose layers do not fit together; each is on integers if it can be."""

    def __init__(self, ffn: FeedForward, backend: Backend, path: str, rows: list[PartRow]) -> None:
        super().__init__()
        self.up_proj = linear_twin(ffn.up_proj, backend, f"{path}.up_proj", rows)
        self.down_proj = linear_twin(ffn.down_proj, backend, f"{path}.down_proj", rows)

    def opened(self) -> "_PerceptronInParts":
        return self

    def add_to_(self, residual: Float[Tensor, "m c"], norm: nn.Module) -> None:
        residual += self.down_proj(F.gelu(self.up_proj(norm(residual))))
