"""Memory of the blocks of a folding trunk on integers, which process rows tile by tile and update the pair in place."""

from collections.abc import Iterator

from protquant.running.memory.setup import Setup
from protquant.running.memory.terms import Term

__all__ = ["integer_block_terms"]


def integer_block_terms(setup: Setup, length: int, batch: int) -> Iterator[Term]:
    """Yield the memory terms of a block, and of the conversion of the final pair to float."""
    trunk, backend = setup.config.trunk, setup.backend
    assert backend is not None
    heads = trunk.pair_dim // trunk.pair_head_dim
    one = length**2 * trunk.pair_dim  # elements of one protein's pair
    tile = _tile_rows(setup, length) * length * trunk.pair_dim
    # The pair of the trunk, updated in place; if the blocks store it in fewer bytes, also this copy.
    held = batch * one * (4 + (setup.pair_bytes if setup.pair_bytes < 4 else 0))
    # A tile in float before and after its norm, decoded or transposed copies, and results.
    tiles = 6 * tile * 4
    # Left and right operand, and the input of the projections, one byte per element.
    yield Term("triangle multiplication", held + 3 * one + tiles)
    # The bias and its transposed copy; the input of the projections, one byte per element.
    yield Term("triangle attention", held + one + 3 * length**2 * heads * 4 + tiles)
    if setup.pair_bytes < 4:
        yield Term("pair converted to float", held + batch * one * 4)


def _tile_rows(setup: Setup, length: int) -> int:
    assert setup.backend is not None
    tokens = setup.backend.tile_tokens
    return length if tokens is None else min(length, max(1, tokens // length))
