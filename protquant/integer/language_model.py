"""ESM-2 on integers: batches without their padding, and no hidden state kept that nobody asks for."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Complex, Float, Integer
from torch import Tensor, nn

from protquant.integer.encoder_layer import IntegerEncoderLayer
from protquant.integer.linear_twin import PartRow, linear_twin
from protquant.integer.packed_sequences import PackedSequences
from protquant.integer.recording import Recorder, can_record
from protquant.kernels.backend import Backend
from protquant.models.alphabet import PAD
from protquant.models.esm2 import ESM2, ESM2Output, LanguageModelHead, RotaryEmbedding
from protquant.quant.memory import release_freed

__all__ = ["IntegerESM2", "integer_language_model", "may_record"]

_LARGE = 2**19
"""Elements of the residual stream from which on layers give back what they free; at 64 residues that cost 8 %."""
_MOST_TOKENS = 2**13
"""That are recorded: with more, kernels run for longer than it takes to launch them one by one."""


def integer_language_model(
    model: ESM2, backend: Backend, prefix: str = "", dtype: torch.dtype | None = None, *, consume: bool = False
) -> tuple["IntegerESM2", list[PartRow]]:
    """Twin of a quantized ESM-2 that runs on integers.

    Parameters
    ----------
    model : ESM2
        Of `quantize`. It is not changed; norms, embedding and what has no integer kernel are shared with it.
    prefix : str
        Path of the model in a larger one, for what comes back and for messages.
    dtype : torch.dtype, optional
        Of attention whose logits and probabilities are in float, see `IntegerSelfAttention`.
    consume : bool
        Whether to take each layer out of `model` once it has a twin, so that no more than one is in memory twice.

    Returns
    -------
    IntegerESM2
        Called as `ESM2` is.
    list of tuple
        What each part runs on.
    """
    rows: list[PartRow] = []
    twin = IntegerESM2(model, backend, f"{prefix}." if prefix else "", dtype, rows, consume)
    return twin, rows


class IntegerESM2(ESM2):
    """Twin of a quantized `ESM2`.

    Sequences of a batch do not see its padding: what comes out there is 0. The residual stream is of the type of the
    embedding, and updated in place. On an NVIDIA GPU the layers are recorded where a batch has its tokens where the one
    before had them, and replayed from then on: so it is with variants of a protein, and with masks that wander along
    it. Only where all is on integers, and neither hidden states nor attention are asked for: not in a folding model.

    Attributes
    ----------
    recorder : Recorder
        Of batches.
    """

    def __init__(
        self, model: ESM2, backend: Backend, prefix: str, dtype: torch.dtype | None, rows: list[PartRow], consume: bool
    ) -> None:
        nn.Module.__init__(self)
        self.config, self.backend = model.config, backend
        self.source, self.fingerprint, self.lineage = model.source, model.fingerprint, model.lineage
        self.embedding, self.final_norm = model.embedding, model.final_norm
        self.stream_entry, self.stream_exit = model.stream_entry, model.stream_exit
        rotary = RotaryEmbedding(self.config.dim // self.config.num_heads, self.config.rotary_frequencies)
        self.rotary = rotary.to(self.embedding.weight.device)
        self.layers = nn.ModuleList()
        for index in range(len(model.layers)):
            layer: Any = model.layers[index]
            self.layers.append(IntegerEncoderLayer(layer, backend, f"{prefix}layers.{index}", dtype, rows))
            if consume:
                model.layers[index] = nn.Identity()
        self.recorder = Recorder(backend.calls)
        self.lm_head = model.lm_head
        if isinstance(model.lm_head, LanguageModelHead):
            self.lm_head = _IntegerHead(model.lm_head, backend, f"{prefix}lm_head", rows)
        self.contact_head = model.contact_head
        if self.config.has_contact_head:
            reason = "one output for every pair: there is nothing to gain"
            rows.append((f"{prefix}contact_head.regression", "simulated", reason))

    def again(self, *, records: bool) -> "IntegerESM2":
        """Other batches through the same layers."""
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
        """Packed rows after the final norm; inner states and attention go to where they are wanted."""
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
        """All layers, as a function of packed rows that it changes in place."""
        tiles, turns = packed.tiles(self.backend.sequence_tokens), self._turns(packed.positions)
        if can_record(packed.positions.device):
            for tile in tiles:
                tile.prepare()

        # Not the model itself, which would hold what holds it.
        layers, stream_exit = self.layers, self.stream_exit

        def run(x: Tensor) -> tuple[Tensor]:
            for index, layer in enumerate(layers):
                if hidden is not None:
                    packed.unpack(stream_exit(x), hidden[:, :, index])
                maps: list[Tensor] | None = None if attentions is None else []
                layer(x, tiles, turns, maps)
                if attentions is not None and maps is not None:
                    packed.unpack_maps(maps, attentions[:, index])
                if hidden is not None and x.device.type == "cpu" and x.numel() >= _LARGE:
                    release_freed()  # What layers free is not found again: 580 MiB in all of them at 512 residues.
            return (x,)

        return run

    def _embed(self, tokens: Integer[Tensor, "b l"], packed: PackedSequences) -> Float[Tensor, "t c"]:
        x: Tensor = self.embedding(packed.pack(tokens))
        return x * packed.pack(self.embedding_factor(tokens)).to(x.dtype)[:, None]

    def _turns(self, positions: Integer[Tensor, " t"]) -> Complex[Tensor, "t p"]:
        angle = torch.outer(positions.float(), self.rotary.inverse_frequency)
        return torch.polar(torch.ones_like(angle), angle)


def may_record(packed: PackedSequences) -> bool:
    """Whether layers are recorded on such a device, with so many tokens."""
    return can_record(packed.positions.device) and len(packed) <= _MOST_TOKENS


class _IntegerHead(LanguageModelHead):
    def __init__(self, head: LanguageModelHead, backend: Backend, path: str, rows: list[PartRow]) -> None:
        nn.Module.__init__(self)
        self.dense = linear_twin(head.dense, backend, f"{path}.dense", rows)  # type: ignore[assignment]
        self.norm, self.bias = head.norm, head.bias
