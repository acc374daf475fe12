"""ESM-2 on integers: batches are packed without padding, and hidden states are stored only on request."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Integer
from torch import Tensor, nn

from protquant.integer.linear import linear_twin
from protquant.integer.norm import is_plain
from protquant.integer.operands import NoIntegerKernelError
from protquant.integer.packed_sequences import PackedSequences
from protquant.integer.part import SupportRow
from protquant.integer.recording import Recorder, can_record
from protquant.integer.sequence_attention import IntegerSelfAttention
from protquant.integer.transition import Perceptron
from protquant.kernels.backend import Backend
from protquant.kernels.sequence_tile import SequenceTile
from protquant.models.alphabet import PAD
from protquant.models.esm2 import ESM2, EncoderLayer, ESM2Output, FeedForward, LanguageModelHead, RotaryEmbedding
from protquant.quant.memory import release_freed

__all__ = ["IntegerESM2", "IntegerEncoderLayer", "may_record"]

_LARGE = 2**19
"""Number of elements of the residual stream above which layers return freed memory; at 64 residues it costs 8 %."""
_MOST_TOKENS = 2**13
"""Largest number of tokens to record: with more, kernels take longer than their launches."""


class IntegerEncoderLayer(nn.Module):
    """Twin of a quantized `EncoderLayer`, which updates its rows in place.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Type of attention, see `Backend.sequence_attention`.
    stream_dtype : torch.dtype
        Type of the residual stream.

    Attributes
    ----------
    rows : list of SupportRow
        Execution of each piece.
    is_recordable : bool
        Whether nothing in the layer waits for the device, as simulated pieces do.
    """

    def __init__(
        self, layer: EncoderLayer, backend: Backend, path: str, dtype: torch.dtype | None, stream_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.backend = backend
        self.attn_norm, self.ffn_norm = layer.attn_norm, layer.ffn_norm
        self.attn = IntegerSelfAttention(layer.attn, backend, f"{path}.attn", dtype, stream_dtype)
        self.ffn: Perceptron | _PerceptronInPieces
        try:
            self.ffn = Perceptron(layer.ffn, backend, f"{path}.ffn", "gelu")
            rows = [SupportRow(f"{path}.ffn.{name}", "integer", backend.kernel) for name in ("up_proj", "down_proj")]
        except NoIntegerKernelError:
            self.ffn = _PerceptronInPieces(layer.ffn, backend, f"{path}.ffn")
            rows = self.ffn.rows
        self.rows = [*self.attn.rows, *rows]
        on_integers = self.attn.is_recordable and isinstance(self.ffn, Perceptron)
        self.is_recordable = on_integers and is_plain(self.attn_norm) and is_plain(self.ffn_norm)

    def forward(
        self,
        x: Float[Tensor, "t c"],
        tiles: Sequence[SequenceTile],
        rotary: Complex[Tensor, "t p"],
        with_maps: bool = False,
    ) -> list[Float[Tensor, "h _ _"]]:
        """Update all rows, tile by tile; return the attention maps of each sequence, if wanted.

        Parameters
        ----------
        rotary : Tensor, shape=(t, p), complex
            Factors of each token's pairs of channels of a head.
        """
        attn, ffn = self.attn.unpacked(), self.ffn.unpacked()
        maps = []
        for tile in tiles:
            rows = x[tile.rows]
            maps += attn.add_to_(rows, self.attn_norm, tile, rotary[tile.rows], with_maps)
            for some in rows.split(self.backend.tile_tokens or len(rows)):
                ffn.add_to_(some, self.ffn_norm)
        return maps


class _PerceptronInPieces(nn.Module):
    """A feed-forward network that is not an integer `Perceptron`; each layer runs on integers if it has a kernel."""

    def __init__(self, ffn: FeedForward, backend: Backend, path: str) -> None:
        super().__init__()
        self.up_proj, up_row = linear_twin(ffn.up_proj, backend, f"{path}.up_proj")
        self.down_proj, down_row = linear_twin(ffn.down_proj, backend, f"{path}.down_proj")
        self.rows = [up_row, down_row]

    def unpacked(self) -> "_PerceptronInPieces":
        return self

    def add_to_(self, residual: Float[Tensor, "m c"], norm: nn.Module) -> None:
        residual += self.down_proj(F.gelu(self.up_proj(norm(residual))))


class IntegerESM2(ESM2):
    """Twin of a quantized `ESM2`, with the same interface.

    Padding does not affect the sequences of a batch; outputs there are 0. The residual stream has the type of the
    embedding, and is updated in place. On an NVIDIA GPU the layers are recorded when two batches in a row have tokens
    in the same places, and replayed for later ones, such as variants or masked copies of a protein. Batches are
    recorded only if all parts run on integers, and neither hidden states nor attention are requested; a folding model
    requests hidden states.

    Parameters
    ----------
    model : ESM2
        Result of `quantize`, which cannot be used afterwards: each layer is deleted once it has a twin, so at most one
        is in memory twice. The twin takes over norms, embedding and parts without an integer kernel.
    path : str
        Path of the model in a larger one, for `rows` and messages.
    dtype : torch.dtype, optional
        Type of attention whose logits and probabilities are in float, see `Backend.sequence_attention`.

    Attributes
    ----------
    rows : list of SupportRow
        Execution of each part.
    recorder : Recorder
        Holds the recording of the last batch.
    """

    def __init__(self, model: ESM2, backend: Backend, path: str = "", dtype: torch.dtype | None = None) -> None:
        with torch.device("meta"):  # The modules of the model, or their twins, replace all modules that have weights.
            super().__init__(replace(model.config, num_layers=1))
        prefix = f"{path}." if path else ""
        self.config, self.backend = model.config, backend
        self.source, self.fingerprint, self.lineage = model.source, model.fingerprint, model.lineage
        self.embedding, self.final_norm = model.embedding, model.final_norm
        self.stream_entry, self.stream_exit = model.stream_entry, model.stream_exit
        rotary = RotaryEmbedding(self.config.dim // self.config.num_heads, self.config.rotary_frequencies)
        self.rotary = rotary.to(self.embedding.weight.device)
        self.layers, self.rows = nn.ModuleList(), list[SupportRow]()
        for index in range(len(model.layers)):
            layer = model.layers[index]
            assert isinstance(layer, EncoderLayer)
            where = f"{prefix}layers.{index}"
            twin = IntegerEncoderLayer(layer, backend, where, dtype, self.embedding.weight.dtype)
            self.layers.append(twin)
            self.rows += twin.rows
            model.layers[index] = nn.Identity()
        self.recorder = Recorder(backend.calls)
        self.lm_head, self.contact_head = model.lm_head, model.contact_head
        if isinstance(self.lm_head, LanguageModelHead):
            dense, row = linear_twin(self.lm_head.dense, backend, f"{prefix}lm_head.dense")
            self.lm_head.add_module("dense", dense)
            self.rows.append(row)
        if self.config.has_contact_head:
            reason = "one output for every pair: there is nothing to gain"
            self.rows.append(SupportRow(f"{prefix}contact_head.regression", "simulated", reason))

    def with_recorder(self, *, records: bool) -> "IntegerESM2":
        """Return a model with the same layers and a recorder of its own."""
        other = copy.copy(self)
        other.recorder = Recorder(self.backend.calls, records=records)
        return other

    @torch.no_grad()
    def forward(
        self, tokens: Integer[Tensor, "b l"], return_hidden: bool = False, return_attentions: bool = False
    ) -> ESM2Output:
        packed = PackedSequences(tokens.ne(PAD))
        config, (batch, length) = self.config, tokens.shape
        hidden = attentions = None
        dtype = self.embedding.weight.dtype
        if return_hidden:
            size = torch.Size((batch, length, config.num_layers + 1, config.dim))
            hidden = torch.zeros(size, dtype=dtype, device=tokens.device)
        if return_attentions:
            size = torch.Size((batch, config.num_layers, config.num_heads, length, length))
            attentions = torch.zeros(size, dtype=dtype, device=tokens.device)
        last = packed.unpack(self._encode(tokens, packed, hidden, attentions))
        if hidden is not None:
            hidden[:, :, -1] = last
        return ESM2Output(last, hidden, attentions)

    @torch.no_grad()
    def logits(self, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l vocab"]:
        packed = PackedSequences(tokens.ne(PAD))
        rows = self._encode(tokens, packed)
        return packed.unpack(self.lm_head(rows, self.embedding.weight))

    def _encode(
        self,
        tokens: Integer[Tensor, "b l"],
        packed: PackedSequences,
        hidden: Float[Tensor, "b l layers c"] | None = None,
        attentions: Float[Tensor, "b layers h l l"] | None = None,
    ) -> Float[Tensor, "t c"]:
        """Return packed rows after the final norm; write hidden states and attention to `hidden` and `attentions`."""
        x = self.stream_entry(self._embed(tokens, packed))
        what = None
        plain = hidden is None and attentions is None
        if plain and may_record(packed) and all(layer.is_recordable for layer in self.layers):
            what = packed.key, x.dtype
        (x,) = self.recorder.run(what, partial(self._prepare, packed, hidden, attentions), x)
        rows: Tensor = self.final_norm(self.stream_exit(x))
        return rows

    def _prepare(
        self,
        packed: PackedSequences,
        hidden: Float[Tensor, "b l layers c"] | None,
        attentions: Float[Tensor, "b layers h l l"] | None,
    ) -> Callable[[Tensor], tuple[Tensor]]:
        """Return a function that runs all layers on packed rows, in place."""
        tiles, rotary = packed.tiles(self.backend.sequence_tokens), self._rotary_factors(packed.positions)
        if can_record(packed.positions.device):
            for tile in tiles:
                tile.prepare()

        # Layers, not `self`: a recorder that references the module would form a reference cycle.
        layers, stream_exit = self.layers, self.stream_exit

        def run(x: Tensor) -> tuple[Tensor]:
            for index, layer in enumerate(layers):
                if hidden is not None:
                    packed.unpack(stream_exit(x), hidden[:, :, index])
                maps = layer(x, tiles, rotary, attentions is not None)
                if attentions is not None:
                    packed.unpack_maps(maps, attentions[:, index])
                if hidden is not None and x.device.type == "cpu" and x.numel() >= _LARGE:
                    release_freed()  # Layers do not reuse memory that others free: 580 MiB in all at 512 residues.
            return (x,)

        return run

    def _embed(self, tokens: Integer[Tensor, "b l"], packed: PackedSequences) -> Float[Tensor, "t c"]:
        x: Tensor = self.embedding(packed.pack(tokens))
        return x * packed.pack(self.embedding_factor(tokens)).to(x.dtype)[:, None]

    def _rotary_factors(self, positions: Integer[Tensor, " t"]) -> Complex[Tensor, "t p"]:
        angle = torch.outer(positions.float(), self.rotary.inverse_frequency)
        return torch.polar(torch.ones_like(angle), angle)


def may_record(packed: PackedSequences) -> bool:
    """Return whether layers are recorded on a device, for a number of tokens."""
    return can_record(packed.positions.device) and len(packed) <= _MOST_TOKENS
