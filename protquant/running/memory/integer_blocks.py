"""Memory of the blocks of a folding trunk on integers: rows are worked on a tile at a time, the pair in place."""

from collections.abc import Iterator

from protquant.running.memory.setup import Setup
from protquant.running.memory.terms import Term

__all__ = ["integer_block_terms"]


def integer_block_terms(setup: Setup, length: int, batch: int) -> Iterator[Term]:
    """Terms of a block, and of the pair that leaves them."""
    trunk, backend = setup.config.trunk, setup.backend
    assert backend is not None
    heads = trunk.pair_dim // trunk.pair_head_dim
    one = length**2 * trunk.pair_dim  # elements of one protein's pair
    tile = _tile_rows(setup, length) * length * trunk.pair_dim
    # The pair as the trunk made it, which is updated in place; where it is kept in fewer bytes, these beside it.
    held = batch * one * (4 + (setup.pair_bytes if setup.pair_bytes < 4 else 0))
    # A tile in float before and after its norm, decoded and turned as need be, and what is made of it.
    tiles = 6 * tile * 4
    # Left and right operand, and what the projections read, in a byte each.
    yield Term("triangle multiplication", held + 3 * one + tiles)
    # The bias and its turned copy; what the projections read, in bytes.
    yield Term("triangle attention", held + one + 3 * length**2 * heads * 4 + tiles)
    if setup.pair_bytes < 4:
        yield Term("pair in float again", held + batch * one * 4)


def _tile_rows(setup: Setup, length: int) -> int:
    assert setup.backend is not None
    tokens = setup.backend.tile_tokens
    return length if tokens is None else min(length, max(1, tokens // length))
