"""A small table of tile sizes by architecture, for kernels of the pair track that were not tuned."""

from dataclasses import dataclass, replace

from protquant.kernels.triton.tiles import MatmulTile

__all__ = ["AttentionTile", "TransitionTile", "gated_tile", "triangle_tile"]


@dataclass(frozen=True)
class AttentionTile:
    """Number of queries of a block, of keys at a time, of warps and of stages."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, target: str | None, head_dim: int, *, is_wide: bool = False) -> "AttentionTile":
        """Return the tile for an architecture of `TARGETS`; None is the interpreter.

        A float32 bias takes registers and halves the number of keys, to not less than the 32 of the matrix units.
        """
        if target is None:
            return cls(64, 64, 4, 2)
        table = _ATTENTION_ODD if head_dim % 16 else _ATTENTION if head_dim <= 32 else _ATTENTION_WIDE
        tile = table[target]
        return replace(tile, keys=max(32, tile.keys // 2)) if is_wide else tile


@dataclass(frozen=True)
class TransitionTile:
    """Number of rows of a block, of hidden channels at a time, of warps and of stages."""

    rows: int
    hidden: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, target: str | None, channels: int) -> "TransitionTile":
        """Return the tile for an architecture of `TARGETS` (None: interpreter) and the larger number of channels."""
        if target is None:
            return cls(64, 64, 4, 2)
        return _TRANSITION[target] if channels <= 128 else _TRANSITION_WIDE[target]


def gated_tile(target: str | None) -> MatmulTile:
    """Return the tile of `gated_projection`, which sums two products at once."""
    return MatmulTile(64, 64, 64, 4, 2) if target is None else _GATED[target]


def triangle_tile(target: str | None, *, is_aligned: bool) -> MatmulTile:
    """Return the tile of `triangle_product`: residues i, residues j, residues k.

    If lengths are not multiples of 16, the kernel loads single bytes; their addresses leave fewer registers for data.
    """
    if target is None:
        return MatmulTile(64, 64, 64, 4, 2)
    return _TRIANGLE[target] if is_aligned else _TRIANGLE_RAGGED[target]


# Larger tiles of all of these need more registers than there are.
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
# If channels are not a multiple of 16, loads are smaller, and their addresses take more registers.
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
