"""Triangle updates of the pair representation (Algorithms 11-14 of Jumper et al. 2021).

Letters in shapes: b batch, i j k residues, c channels of the pair, h heads, d channels of a head.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.sites import Tap, tap_logits
from protquant.topology import Link, Product

__all__ = ["MAX_ATTENTION_ELEMENTS", "TriangleAttention", "TriangleMultiplication"]

# More elements overflow the 32-bit offsets of some kernels. The unchunked logits of released ESMFold (4 heads) exceed
# this at 813 residues, and their offsets wrap around silently at 1,024.
MAX_ATTENTION_ELEMENTS = 2**31

# Added to logits of padded keys; finite (in half precision too), so that a row without valid keys stays finite.
_MASKED = -1e9


class TriangleMultiplication(nn.Module):
    """Multiplicative update along "outgoing" (Algorithm 11) or "incoming" (Algorithm 12) edges."""

    def __init__(self, dim: int, direction: Literal["outgoing", "incoming"]) -> None:
        super().__init__()
        self.direction = direction
        self.norm = nn.LayerNorm(dim)
        self.left_proj, self.left_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.right_proj, self.right_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.left, self.right = Tap("matmul_operand"), Tap("matmul_operand")
        self.out_norm = nn.LayerNorm(dim)
        self.out_proj, self.out_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.update = nn.Identity()  # a rotation of the residual stream is applied here

    def links(self) -> list[Link]:
        readers = ("left_proj", "left_gate", "right_proj", "right_gate", "out_gate")
        return [Link(readers, "norm"), Link(("out_proj",), "out_norm")]

    def products(self) -> list[Product]:
        rows = tuple(range(self.left_proj.out_features))
        return [Product("left_proj", "right_proj", rows, rows)]

    def forward(self, pair: Float[Tensor, "b i j c"], mask: Bool[Tensor, "b i j"]) -> Float[Tensor, "b i j c"]:
        z = self.norm(pair)
        # A separate function, so that both operands are freed when it returns.
        update = self.out_proj(self.out_norm(self._product(z, mask.unsqueeze(-1))))
        gated: Tensor = self.update(self.out_gate(z).sigmoid().mul(update))
        return gated

    def _product(self, z: Float[Tensor, "b i j c"], valid: Bool[Tensor, "b i j 1"]) -> Float[Tensor, "b i j c"]:
        left = self.left(self.left_gate(z).sigmoid().mul(self.left_proj(z)).mul(valid))
        right = self.right(self.right_gate(z).sigmoid().mul(self.right_proj(z)).mul(valid))
        left, right = left.permute(0, 3, 1, 2), right.permute(0, 3, 1, 2)  # (b, c, i, k) or (b, c, k, i)
        if self.direction == "outgoing":
            product = left @ right.transpose(-1, -2)  # sum over k of left[i, k] * right[j, k]
        else:
            product = left.transpose(-1, -2) @ right  # sum over k of left[k, i] * right[k, j]
        return product.permute(0, 2, 3, 1)


class TriangleAttention(nn.Module):
    """Gated self-attention along rows ("starting" node, Algorithm 13) or columns ("ending", Algorithm 14)."""

    def __init__(self, dim: int, head_dim: int, num_heads: int, node: Literal["starting", "ending"]) -> None:
        super().__init__()
        self.node = node
        self.num_heads = num_heads
        self.scale = 1 / math.sqrt(head_dim)
        inner = num_heads * head_dim
        self.norm = nn.LayerNorm(dim)
        self.bias_proj = nn.Linear(dim, num_heads, bias=False)
        self.q_proj, self.k_proj = nn.Linear(dim, inner, bias=False), nn.Linear(dim, inner, bias=False)
        self.v_proj = nn.Linear(dim, inner, bias=False)
        self.gate_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)
        self.q, self.k, self.v = Tap("matmul_operand"), Tap("matmul_operand"), Tap("matmul_operand")
        self.logits, self.probs = Tap("softmax_input"), Tap("softmax_output")

    def links(self) -> list[Link]:
        return [
            Link(("bias_proj", "q_proj", "k_proj", "v_proj", "gate_proj"), "norm"),
            Link(("out_proj",), "v_proj"),
        ]

    def products(self) -> list[Product]:
        rows = tuple(range(self.q_proj.out_features))
        return [Product("q_proj", "k_proj", rows, rows)]

    def forward(
        self, pair: Float[Tensor, "b i j c"], mask: Bool[Tensor, "b i j"], chunk_size: int | None = None
    ) -> Float[Tensor, "b i j c"]:
        """Return the updated pair; `chunk_size` rows are processed at a time, with equal results in less memory.

        If the logits would exceed `MAX_ATTENTION_ELEMENTS`, rows are chunked even if `chunk_size` is None.
        """
        if self.node == "ending":
            pair, mask = pair.transpose(1, 2), mask.transpose(1, 2)
        batch, length = pair.shape[:2]
        z = self.norm(pair)
        triangle_bias = self.bias_proj(z).permute(0, 3, 1, 2).unsqueeze(1)  # (b, 1, h, j, k)
        rows = max(1, MAX_ATTENTION_ELEMENTS // (batch * self.num_heads * length**2))
        rows = min(rows, length, chunk_size or length)
        update = [
            self._attend(z[:, first : first + rows], triangle_bias, mask[:, first : first + rows])
            for first in range(0, length, rows)
        ]
        out = update[0] if len(update) == 1 else torch.cat(update, dim=1)
        return out.transpose(1, 2) if self.node == "ending" else out

    def _split_heads(self, x: Float[Tensor, "b i j c"]) -> Float[Tensor, "b i h j d"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)

    def _attend(
        self, z: Float[Tensor, "b i j c"], bias: Float[Tensor, "b 1 h j k"], mask: Bool[Tensor, "b i j"]
    ) -> Float[Tensor, "b i j c"]:
        q = self.q(self._split_heads(self.q_proj(z) * self.scale))
        k = self.k(self._split_heads(self.k_proj(z)))
        v = self.v(self._split_heads(self.v_proj(z)))
        logits = tap_logits(self.logits, q @ k.transpose(-1, -2) + bias, mask[:, :, None, None, :])
        if mask.is_meta or not mask.all():  # the values of a meta tensor are unknown
            penalty = torch.where(mask, 0.0, max(_MASKED, torch.finfo(logits.dtype).min / 2))
            logits = logits + penalty[:, :, None, None, :].to(logits.dtype)
        out = (self.probs(logits.softmax(dim=-1)) @ v).transpose(-2, -3).flatten(-2)
        return self.out_proj(self.gate_proj(z).sigmoid() * out)
