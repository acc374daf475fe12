"""The folding trunk of ESMFold: alternating updates of a single and a pair representation (Lin et al. 2023).

Letters in shapes: b batch, i j l residues, s channels of the single, c channels of the pair, h heads.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from protquant.models.configs import TrunkConfig
from protquant.models.embedding import embedding
from protquant.models.structure_module import Structure, StructureModule
from protquant.models.triangle import TriangleAttention, TriangleMultiplication
from protquant.residues import VIRTUAL_CB
from protquant.sites import Tap, tap_logits
from protquant.topology import Link, Product, Stream

__all__ = ["AfterPass", "FoldingBlock", "FoldingBlocks", "FoldingTrunk", "TrunkConfig", "virtual_cb"]

# Callback with the number of finished recycles, the single, the pair and the structure; True ends the passes.
AfterPass = Callable[[int, Tensor, Tensor, Structure], bool]

_PAIR_UPDATES = ("single_to_pair", "tri_mul_out", "tri_mul_in", "tri_attn_start", "tri_attn_end", "pair_transition")
_RECYCLE_BINS = 15
_RECYCLE_MIN, _RECYCLE_MAX = 3.375, 21.375  # angstrom


class SingleAttention(nn.Module):
    """Gated self-attention of the single representation with a bias from the pair."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = dim // head_dim
        self.scale = head_dim**-0.5
        # One projection; for each head, its output is q, then k, then v (the layout of released checkpoints).
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.gate_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.q, self.k, self.v = Tap("matmul_operand"), Tap("matmul_operand"), Tap("matmul_operand")
        self.logits, self.probs = Tap("softmax_input"), Tap("softmax_output")

    def _rows(self, which: int) -> tuple[int, ...]:
        """Return the output rows of `qkv_proj` for queries (0), keys (1) or values (2)."""
        rows = torch.arange(self.qkv_proj.out_features, device="cpu").view(self.num_heads, 3, -1)
        return tuple(rows[:, which].flatten().tolist())

    def links(self) -> list[Link]:
        return [Link(("out_proj",), "qkv_proj", self._rows(2))]

    def products(self) -> list[Product]:
        return [Product("qkv_proj", "qkv_proj", self._rows(0), self._rows(1))]

    def forward(
        self, x: Float[Tensor, "b l s"], bias: Float[Tensor, "b h i j"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l s"]:
        q, k, v = self.qkv_proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        q, k, v = self.q(q * self.scale), self.k(k), self.v(v)
        logits = tap_logits(self.logits, q @ k.transpose(-1, -2) + bias, mask[:, None, None, :])
        logits = logits.masked_fill(~mask[:, None, None, :], float("-inf"))
        out = (self.probs(logits.softmax(dim=-1)) @ v).transpose(1, 2).flatten(-2)
        return self.out_proj(self.gate_proj(x).sigmoid() * out)


class Transition(nn.Module):
    """Pre-LayerNorm two-layer perceptron with ReLU and four times as many hidden channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up_proj = nn.Linear(dim, 4 * dim)
        self.down_proj = nn.Linear(4 * dim, dim)

    def links(self) -> list[Link]:
        return [Link(("up_proj",), "norm"), Link(("down_proj",), "up_proj")]

    def forward(self, x: Float[Tensor, "*shape c"], chunk_size: int | None = None) -> Float[Tensor, "*shape c"]:
        """Return the updated tensor; `chunk_size` rows (second axis) are processed at a time, to save memory."""
        if chunk_size is None or chunk_size >= x.shape[1]:
            return self._update(x)
        return torch.cat([self._update(rows) for rows in x.split(chunk_size, dim=1)], dim=1)

    def _update(self, x: Float[Tensor, "*shape c"]) -> Float[Tensor, "*shape c"]:
        # In place to save memory: the output of `up_proj` is the widest tensor of the trunk, and has no other reader.
        return self.down_proj(F.relu_(self.up_proj(self.norm(x))))


class SingleToPair(nn.Module):
    """Products and differences of projected residues."""

    def __init__(self, single_dim: int, pair_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(single_dim)
        self.proj = nn.Linear(single_dim, 2 * (pair_dim // 2))
        self.out_proj = nn.Linear(2 * (pair_dim // 2), pair_dim)

    def links(self) -> list[Link]:
        return [Link(("proj",), "norm"), Link(("out_proj",))]

    def forward(self, single: Float[Tensor, "b l s"]) -> Float[Tensor, "b i j c"]:
        q, k = self.proj(self.norm(single)).chunk(2, dim=-1)
        q, k = q[:, None, :, :], k[:, :, None, :]
        return self.out_proj(torch.cat((q * k, q - k), dim=-1))


class PairToBias(nn.Module):
    """Projection of the pair representation to attention biases, one channel per head."""

    def __init__(self, pair_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(pair_dim)
        self.proj = nn.Linear(pair_dim, num_heads, bias=False)

    def links(self) -> list[Link]:
        return [Link(("proj",), "norm")]

    def forward(self, pair: Float[Tensor, "b i j c"]) -> Float[Tensor, "b h i j"]:
        return self.proj(self.norm(pair)).permute(0, 3, 1, 2)


class FoldingBlock(nn.Module):
    """One block: updates the single from itself and the pair, then the pair from the single and itself."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        single, pair = config.single_dim, config.pair_dim
        heads = pair // config.pair_head_dim
        self.pair_to_bias = PairToBias(pair, single // config.single_head_dim)
        self.single_norm = nn.LayerNorm(single)
        self.single_attn = SingleAttention(single, config.single_head_dim)
        self.single_transition = Transition(single)
        self.single_to_pair = SingleToPair(single, pair)
        self.tri_mul_out = TriangleMultiplication(pair, "outgoing")
        self.tri_mul_in = TriangleMultiplication(pair, "incoming")
        self.tri_attn_start = TriangleAttention(pair, config.pair_head_dim, heads, "starting")
        self.tri_attn_end = TriangleAttention(pair, config.pair_head_dim, heads, "ending")
        self.pair_transition = Transition(pair)
        # Taps of the pair after each update.
        self.pair_residual = nn.ModuleDict({name: Tap("residual") for name in _PAIR_UPDATES})

    def links(self) -> list[Link]:
        return [Link(("single_attn.qkv_proj", "single_attn.gate_proj"), "single_norm")]

    @staticmethod
    def next_inputs(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """Return the arguments of the next block."""
        return *outputs, *inputs[2:]

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        mask: Bool[Tensor, "b l"],
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"]]:
        single = single + self.single_attn(self.single_norm(single), self.pair_to_bias(pair), mask)
        single = single + self.single_transition(single)
        pair_mask = mask[:, :, None] & mask[:, None, :]
        tap = self.pair_residual
        pair = tap["single_to_pair"](pair + self.single_to_pair(single))
        pair = tap["tri_mul_out"](pair + self.tri_mul_out(pair, pair_mask))
        pair = tap["tri_mul_in"](pair + self.tri_mul_in(pair, pair_mask))
        pair = tap["tri_attn_start"](pair + self.tri_attn_start(pair, pair_mask, chunk_size))
        pair = tap["tri_attn_end"](pair + self.tri_attn_end(pair, pair_mask, chunk_size))
        pair = tap["pair_transition"](pair + self.pair_transition(pair, chunk_size))
        return single, pair


class RelativePosition(nn.Module):
    """Embedding of clamped differences of residue indices; entry 0 is for padded pairs."""

    def __init__(self, bins: int, pair_dim: int) -> None:
        super().__init__()
        self.bins = bins
        self.embedding = embedding(2 * bins + 2, pair_dim)

    def forward(self, residue_index: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b i j c"]:
        difference = residue_index[:, None, :] - residue_index[:, :, None]
        bucket = difference.clamp(-self.bins, self.bins) + self.bins + 1
        return self.embedding(bucket.masked_fill(~(mask[:, :, None] & mask[:, None, :]), 0))


def virtual_cb(n: Float[Tensor, "*l 3"], ca: Float[Tensor, "*l 3"], c: Float[Tensor, "*l 3"]) -> Float[Tensor, "*l 3"]:
    """Return the ideal position of C-beta for a backbone, in angstrom."""
    b, a = ca - n, c - ca
    cross, along_n, along_c = VIRTUAL_CB
    return cross * torch.linalg.cross(b, a) + along_n * b + along_c * a + ca


class FoldingBlocks(nn.ModuleList):
    """A chain of blocks with the interface of one block; blocks of transformers take a mask of integers."""

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        mask: Shaped[Tensor, "b l"],
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"]]:
        for block in self:
            single, pair = block(single, pair, mask, chunk_size)
        return single, pair


class FoldingTrunk(nn.Module):
    """Blocks and structure module, run `num_recycles + 1` times on their own output."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        structure = config.structure_module
        self.relative_position = RelativePosition(config.position_bins, config.pair_dim)
        # Identities at the ends of the two residual streams, where a rotation is applied and reversed.
        self.single_entry, self.single_exit = nn.Identity(), nn.Identity()
        self.pair_entry, self.pair_exit = nn.Identity(), nn.Identity()
        self.blocks = FoldingBlocks(FoldingBlock(config) for _ in range(config.num_blocks))
        self.recycle_single_norm = nn.LayerNorm(config.single_dim)
        self.recycle_pair_norm = nn.LayerNorm(config.pair_dim)
        self.recycle_distogram = embedding(_RECYCLE_BINS, config.pair_dim)
        self.to_structure_single = nn.Linear(config.single_dim, structure.single_dim)
        self.to_structure_pair = nn.Linear(config.pair_dim, structure.pair_dim)
        self.structure_module = StructureModule(structure)

    def streams(self) -> list[Stream]:
        blocks = [f"blocks.{i}" for i in range(self.config.num_blocks)]

        def paths(*names: str) -> tuple[str, ...]:
            return tuple(f"{block}.{name}" for block in blocks for name in names)

        attention = ("tri_attn_start", "tri_attn_end")
        multiplication = ("tri_mul_out", "tri_mul_in")
        return [
            Stream(
                self.config.single_dim,
                norms=paths("single_norm", "single_transition.norm", "single_to_pair.norm"),
                writers=paths("single_attn.out_proj", "single_transition.down_proj"),
                entries=("single_entry",),
                exits=("single_exit",),
            ),
            Stream(
                self.config.pair_dim,
                norms=paths(
                    "pair_to_bias.norm", "pair_transition.norm", *(f"{m}.norm" for m in (*attention, *multiplication))
                ),
                writers=paths(
                    "single_to_pair.out_proj", "pair_transition.down_proj", *(f"{m}.out_proj" for m in attention)
                ),
                # A gate follows the output projection of triangle multiplication, so its update enters here.
                entries=("pair_entry", *paths(*(f"{m}.update" for m in multiplication))),
                exits=("pair_exit",),
            ),
        ]

    def forward(
        self,
        single_input: Float[Tensor, "b l s"],
        aatype: Int[Tensor, "b l"],
        residue_index: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        num_recycles: int,
        chunk_size: int | None = None,
        after_pass: AfterPass | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"], Structure]:
        """Run `num_recycles + 1` passes, or until `after_pass` returns True.

        Only the last pass has gradients.
        """
        single = torch.zeros_like(single_input)
        batch, length = aatype.shape
        pair = single_input.new_zeros(batch, length, length, self.config.pair_dim)
        bins = aatype.new_zeros(batch, length, length)
        for remaining in range(num_recycles, -1, -1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and remaining == 0):
                single = single_input + self.recycle_single_norm(single)
                # Add in place to the output of the norm, which saves one pair-sized tensor.
                pair = self.recycle_pair_norm(pair)
                pair += self.recycle_distogram(bins)
                pair += self.relative_position(residue_index, mask)
                single, pair = self.single_entry(single), self.pair_entry(pair)
                single, pair = self.blocks(single, pair, mask, chunk_size)
                single, pair = self.single_exit(single), self.pair_exit(pair)
                structure = self.structure_module(
                    self.to_structure_single(single), pair, aatype, mask, self.to_structure_pair
                )
                if after_pass is not None and after_pass(num_recycles - remaining, single, pair, structure):
                    break
                if remaining:
                    single, pair = single.detach(), pair.detach()
                    bins = self.distance_bins(structure.positions.detach())
        return single, pair, structure

    @staticmethod
    def distance_bins(positions: Float[Tensor, "b l 14 3"]) -> Int[Tensor, "b l l"]:
        """Return the bin of the distance between virtual C-betas: 15 bins from 3.375 to 21.375 angstrom."""
        cb = virtual_cb(*positions[..., :3, :].unbind(-2))
        boundaries = torch.linspace(_RECYCLE_MIN, _RECYCLE_MAX, _RECYCLE_BINS - 1, device=cb.device) ** 2
        squared = (cb[:, :, None] - cb[:, None, :]).square().sum(-1, keepdim=True)
        return (squared > boundaries).sum(-1)
