"""ESM-2: a pre-LayerNorm transformer encoder with rotary positions (Lin et al. 2023).

Letters in shapes: b batch, l tokens, c channels, h heads, d channels of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.models.alphabet import EOS, MASK, PAD, tokenize
from protquant.models.configs import ESM2Config
from protquant.models.embedding import embedding
from protquant.models.protocol import LanguageModel
from protquant.models.tasks import TaskName
from protquant.sites import Tap, tap_logits
from protquant.topology import Link, Product, Stream

__all__ = ["ESM2", "ESM2Config", "ESM2Output"]

# Fraction of tokens that were replaced by <mask> in training: 15 % are selected, and 80 % of these are masked.
_MASK_RATIO_IN_TRAINING = 0.15 * 0.8


@dataclass
class ESM2Output:
    """Output of the encoder; an optional field is None unless it is requested.

    Attributes
    ----------
    last_hidden : Tensor, shape=(b, l, c)
        Hidden states after the final LayerNorm.
    hidden : Tensor, shape=(b, l, num_layers + 1, c), or None
        Input of ESMFold's layer mix: the embedding, the output of every layer but the last, and `last_hidden`.
    attentions : Tensor, shape=(b, num_layers, h, l, l), or None
    """

    last_hidden: Float[Tensor, "b l c"]
    hidden: Float[Tensor, "b l states c"] | None = None
    attentions: Float[Tensor, "b layers h l l"] | None = None


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class RotaryEmbedding(nn.Module):
    """Rotary position embedding (Su et al. 2021), by default of base 10,000, on the two halves of a head."""

    inverse_frequency: Tensor

    def __init__(self, head_dim: int, frequencies: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if frequencies is None:
            # On the CPU even if parameters are on the meta device, because the state dict does not contain it.
            exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
            inverse_frequency = 1.0 / 10_000**exponent
        else:
            inverse_frequency = torch.tensor(frequencies, dtype=torch.float32, device="cpu")
        self.register_buffer("inverse_frequency", inverse_frequency, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Frequencies stay exact in a half-precision model: rounding them would rotate distant residues wrongly.
        exact = self.inverse_frequency
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.inverse_frequency = exact.to(self.inverse_frequency.device)
        return self

    def forward(self, q: Float[Tensor, "b h l d"], k: Float[Tensor, "b h l d"]) -> tuple[Tensor, Tensor]:
        position = torch.arange(q.shape[-2], device=q.device, dtype=torch.float32)
        angle = torch.outer(position, self.inverse_frequency).repeat(1, 2)  # (l, d)
        cos, sin = angle.cos(), angle.sin()
        rotated_q = q * cos + _rotate_half(q) * sin
        rotated_k = k * cos + _rotate_half(k) * sin
        return rotated_q.to(q.dtype), rotated_k.to(k.dtype)


class SelfAttention(nn.Module):
    def __init__(self, config: ESM2Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = (config.dim // config.num_heads) ** -0.5
        self.q_proj = nn.Linear(config.dim, config.dim)
        self.k_proj = nn.Linear(config.dim, config.dim)
        self.v_proj = nn.Linear(config.dim, config.dim)
        self.out_proj = nn.Linear(config.dim, config.dim)
        self.rotary = RotaryEmbedding(config.dim // config.num_heads, config.rotary_frequencies)
        self.q, self.k, self.v = Tap("matmul_operand"), Tap("matmul_operand"), Tap("matmul_operand")
        self.logits, self.probs = Tap("softmax_input"), Tap("softmax_output")

    def links(self) -> list[Link]:
        return [Link(("out_proj",), "v_proj", mixable=self.v_proj.out_features // self.num_heads)]

    def products(self) -> list[Product]:
        rows = tuple(range(self.q_proj.out_features))
        return [Product("q_proj", "k_proj", rows, rows, tied=len(rows) // self.num_heads // 2)]

    def _split_heads(self, x: Float[Tensor, "b l c"]) -> Float[Tensor, "b h l d"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, x: Float[Tensor, "b l c"], padding: Bool[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b l c"], Float[Tensor, "b h l l"]]:
        q = self._split_heads(self.q_proj(x) * self.scale)
        k = self._split_heads(self.k_proj(x))
        v = self.v(self._split_heads(self.v_proj(x)))
        q, k = self.rotary(q, k)
        logits = tap_logits(self.logits, self.q(q) @ self.k(k).transpose(-1, -2), ~padding[:, None, None, :])
        # Masked after the tap, because calibration must not see minus infinity.
        logits = logits.masked_fill(padding[:, None, None, :], float("-inf"))
        exact = torch.promote_types(logits.dtype, torch.float32)
        probs = self.probs(logits.softmax(dim=-1, dtype=exact).to(v.dtype))
        out = (probs @ v).transpose(1, 2).flatten(-2)
        return self.out_proj(out), probs


class FeedForward(nn.Module):
    def __init__(self, config: ESM2Config) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.dim, config.ffn_dim)
        self.down_proj = nn.Linear(config.ffn_dim, config.dim)

    def links(self) -> list[Link]:
        return [Link(("down_proj",))]  # no writer, because GELU does not commute with a scale

    def forward(self, x: Float[Tensor, "b l c"]) -> Float[Tensor, "b l c"]:
        return self.down_proj(F.gelu(self.up_proj(x)))


class EncoderLayer(nn.Module):
    def __init__(self, config: ESM2Config) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.attn = SelfAttention(config)
        self.ffn_norm = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.ffn = FeedForward(config)

    def links(self) -> list[Link]:
        return [
            Link(("attn.q_proj", "attn.k_proj", "attn.v_proj"), "attn_norm"),
            Link(("ffn.up_proj",), "ffn_norm"),
        ]

    @staticmethod
    def next_inputs(inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the arguments of the next layer."""
        return outputs[0], *inputs[1:]

    def forward(self, x: Float[Tensor, "b l c"], padding: Bool[Tensor, "b l"]) -> tuple[Tensor, Tensor]:
        update, probs = self.attn(self.attn_norm(x), padding)
        x = x + update
        return x + self.ffn(self.ffn_norm(x)), probs


class LanguageModelHead(nn.Module):
    """Dense, GELU, LayerNorm, then the transposed token embedding."""

    def __init__(self, config: ESM2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Float[Tensor, "... c"], embedding: Float[Tensor, "v c"]) -> Float[Tensor, "... v"]:
        return F.linear(self.norm(F.gelu(self.dense(x))), embedding, self.bias)


class ContactHead(nn.Module):
    """Logistic regression on symmetrized, average-product-corrected attention maps (Rao et al. 2021)."""

    def __init__(self, config: ESM2Config) -> None:
        super().__init__()
        self.regression = nn.Linear(config.num_layers * config.num_heads, 1)

    @staticmethod
    def features(
        tokens: Int[Tensor, "b l"], attentions: Float[Tensor, "b layers h l l"]
    ) -> Float[Tensor, "b residues residues features"]:
        """Return attention between residues only (no `<cls>`, `<eos>`, `<pad>`), symmetrized and corrected."""
        residue = tokens.ne(EOS) & tokens.ne(PAD)
        attentions = attentions.to(torch.promote_types(attentions.dtype, torch.float32))
        attentions = attentions * (residue[:, None, :] & residue[:, :, None])[:, None, None]
        maps = attentions[..., 1:-1, 1:-1].flatten(1, 2)
        maps = maps + maps.transpose(-1, -2)
        row, column, total = maps.sum(-1, keepdim=True), maps.sum(-2, keepdim=True), maps.sum((-1, -2), keepdim=True)
        return (maps - row * column / total).permute(0, 2, 3, 1)

    def forward(
        self, tokens: Int[Tensor, "b l"], attentions: Float[Tensor, "b layers h l l"]
    ) -> Float[Tensor, "b residues residues"]:
        features = self.features(tokens, attentions).to(self.regression.weight.dtype)
        return self.regression(features).squeeze(-1).sigmoid()


class AbsentHead(nn.Module):
    """Placeholder for a head that a checkpoint lacks; a call raises an error."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *_: Tensor) -> Tensor:
        raise ProtquantError(f"This checkpoint has no {self.name}; load one that has it, such as a released ESM-2.")


class ESM2(LanguageModel):
    """The ESM-2 encoder with its masked-language-model head and contact head."""

    config_type = ESM2Config
    mask_token = MASK

    def __init__(self, config: ESM2Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = embedding(config.vocab_size, config.dim, padding_idx=PAD)
        # Identities at the ends of the residual stream, where a rotation is applied and reversed.
        self.stream_entry, self.stream_exit = nn.Identity(), nn.Identity()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.lm_head = LanguageModelHead(config) if config.has_lm_head else AbsentHead("language-model head")
        self.contact_head = ContactHead(config) if config.has_contact_head else AbsentHead("contact head")

    @property
    def tasks(self) -> frozenset[TaskName]:
        heads: dict[TaskName, bool] = {"contacts": self.config.has_contact_head, "language": self.config.has_lm_head}
        return frozenset(task for task, is_there in heads.items() if is_there)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def tokenize(self, sequences: Sequence[str]) -> Int[Tensor, "b l"]:
        return tokenize(sequences, self.device)

    def streams(self) -> list[Stream]:
        layers = [f"layers.{i}" for i in range(self.config.num_layers)]
        return [
            Stream(
                self.config.dim,
                norms=tuple(f"{layer}.{norm}" for layer in layers for norm in ("attn_norm", "ffn_norm")),
                writers=tuple(f"{layer}.{writer}" for layer in layers for writer in ("attn.out_proj", "ffn.down_proj")),
                entries=("stream_entry",),
                exits=("stream_exit",),
                # The final LayerNorm subtracts the mean, and so does the LayerNorm of ESMFold's layer mix.
                mean_is_read=False,
            )
        ]

    def embed(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l c"]:
        """Return token embeddings; `<mask>` is zero, and others are rescaled for the fraction of masks in training."""
        x: Tensor = self.embedding(tokens)
        return x * self.embedding_factor(tokens).to(x.dtype)[..., None]

    def embedding_factor(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """Return the factor of each token's embedding; 0 for padding."""
        padding = tokens.eq(PAD)
        if not self.config.token_dropout:
            return (~padding).float()
        masked = tokens.eq(MASK)
        ratio = masked.sum(-1) / (~padding).sum(-1)
        factor = ((1 - _MASK_RATIO_IN_TRAINING) / (1 - ratio))[:, None].expand(tokens.shape)
        return factor.masked_fill(padding | masked, 0.0)

    def forward(
        self, tokens: Int[Tensor, "b l"], return_hidden: bool = False, return_attentions: bool = False
    ) -> ESM2Output:
        """Encode tokens of `alphabet.tokenize`."""
        padding = tokens.eq(PAD)
        x = self.stream_entry(self.embed(tokens))
        hidden, attentions = [], []
        for layer in self.layers:
            if return_hidden:
                hidden.append(self.stream_exit(x))
            x, probs = layer(x, padding)
            if return_attentions:
                attentions.append(probs)
            del probs  # frees memory for the next layer
        last = self.final_norm(self.stream_exit(x))
        return ESM2Output(
            last_hidden=last,
            hidden=torch.stack([*hidden, last], dim=2) if return_hidden else None,
            attentions=torch.stack(attentions, dim=1) if return_attentions else None,
        )

    def logits(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l vocab"]:
        """Return the logits of the masked language model.

        Raises
        ------
        ProtquantError
            If the checkpoint has no language-model head.
        """
        logits: Tensor = self.lm_head(self(tokens).last_hidden, self.embedding.weight)
        return logits

    def contacts(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b residues residues"]:
        """Return contact probabilities (C-beta closer than 8 angstrom) between residues, in [0, 1].

        Raises
        ------
        ProtquantError
            If the checkpoint has no contact head.
        """
        attentions = self(tokens, return_attentions=True).attentions
        assert attentions is not None
        contacts: Tensor = self.contact_head(tokens, attentions)
        return contacts

    def logits_and_contacts(self, tokens: Int[Tensor, "b l"]) -> tuple[Tensor | None, Tensor | None]:
        output = self(tokens, return_attentions="contacts" in self.tasks)
        logits = self.lm_head(output.last_hidden, self.embedding.weight) if "language" in self.tasks else None
        return logits, None if output.attentions is None else self.contact_head(tokens, output.attentions)
