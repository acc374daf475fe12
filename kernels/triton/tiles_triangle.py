"""Tile sizes of the pair track's kernels by architecture: a small table, to start from where nothing was tuned."""

from dataclasses import dataclass, replace

from protquant.kernels.triton.tiles import MatmulTile

__all__ = ["AttentionTile", "TransitionTile", "gated_tile", "triangle_tile"]


@dataclass(frozen=True)
class AttentionTile:
    """Queries of a block, keys that it meets at a time, and how it is spread over a multiprocessor."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, target: str | None, head_dim: int, *, is_wide: bool = False) -> "AttentionTile":
        """The tile for an architecture of `TARGETS`; None is the interpreter.

        A float32 bias is wide: it leaves room for half as many keys, but for the 32 that matrix units sum over.
        """
        if target is None:
            return cls(64, 64, 4, 2)
        table = _ATTENTION_ODD if head_dim % 16 else _ATTENTION if head_dim <= 32 else _ATTENTION_WIDE
        tile = table[target]
        return replace(tile, keys=max(32, tile.keys // 2)) if is_wide else tile


@dataclass(frozen=True)
class TransitionTile:
    """Rows of a block, hidden channels that it makes at a time, and how it is spread over a multiprocessor."""

    rows: int
    hidden: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, target: str | None, channels: int) -> "TransitionTile":
        """The tile for an architecture of `TARGETS` and the larger of the numbers of channels; None: interpreter."""
        if target is None:
            return cls(64, 64, 4, 2)
        return _TRANSITION[target] if channels <= 128 else _TRANSITION_WIDE[target]


def gated_tile(target: str | None) -> MatmulTile:
    """The tile of `gated_projection`, which sums two products at once."""
    return MatmulTile(64, 64, 64, 4, 2) if target is None else _GATED[target]


def triangle_tile(target: str | None, *, is_aligned: bool) -> MatmulTile:
    """The tile of `triangle_product`: residues i, residues j, residues k.

    Where lengths are no multiples of 16, every byte has an address of its own, and of those fewer fit into registers.
    """
    if target is None:
        return MatmulTile(64, 64, 64, 4, 2)
    return _TRIANGLE[target] if is_aligned else _TRIANGLE_RAGGED[target]


# Larger ones were tried for all of these, and spilled.
_GATED = {
    "sm_80": MatmulTile(128, 64, 64, 8, 3),
    "sm_90": MatmulTile(64, 64, 128, 4, 2),
    "sm_100": MatmulTile(128, 32, 128, 8, 3),
    "gfx942": MatmulTile(128, 64, 64, 8, 2),
}
_TRIANGLE = {
    "sm_80": MatmulTile(128, 128, 64, 8, 3),
    "sm_90": MatmulTile(128, 128, 64, 8, 3),
    "sm_100": MatmulTile(128, 128, 64, 8, 3),
    "gfx942": MatmulTile(128, 128, 64, 8, 2),
}
_TRIANGLE_RAGGED = {
    "sm_80": MatmulTile(64, 64, 64, 8, 3),
    "sm_90": MatmulTile(64, 64, 64, 8, 3),
    "sm_100": MatmulTile(64, 64, 64, 8, 3),
    "gfx942": MatmulTile(128, 128, 64, 8, 2),
}
_ATTENTION = {
    "sm_80": AttentionTile(128, 64, 8, 2),
    "sm_90": AttentionTile(128, 64, 8, 2),
    "sm_100": AttentionTile(128, 64, 8, 2),
    "gfx942": AttentionTile(64, 32, 4, 2),
}
_ATTENTION_WIDE = {
    "sm_80": AttentionTile(64, 32, 8, 2),
    "sm_90": AttentionTile(128, 32, 8, 2),
    "sm_100": AttentionTile(128, 32, 8, 2),
    "gfx942": AttentionTile(64, 32, 4, 2),
}
# Where channels are no multiple of 16, codes are loaded in smaller pieces, whose addresses take room as well.
_ATTENTION_ODD = {
    "sm_80": AttentionTile(64, 64, 8, 2),
    "sm_90": AttentionTile(64, 64, 8, 2),
    "sm_100": AttentionTile(128, 64, 8, 2),
    "gfx942": AttentionTile(32, 32, 4, 2),
}
_TRANSITION = {
    "sm_80": TransitionTile(128, 32, 8, 2),
    "sm_90": TransitionTile(64, 64, 4, 2),
    "sm_100": TransitionTile(64, 64, 8, 2),
    "gfx942": TransitionTile(64, 32, 8, 2),
}
_TRANSITION_WIDE = {
    "sm_80": TransitionTile(64, 32, 8, 2),
    "sm_90": TransitionTile(64, 64, 8, 2),
    "sm_100": TransitionTile(64, 64, 16, 2),
    "gfx942": TransitionTile(32, 32, 8, 2),
}
