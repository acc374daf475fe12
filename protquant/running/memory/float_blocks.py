"""Memory of the blocks of a folding trunk in float, with or without simulated quantization."""

from collections.abc import Iterator

from protquant.models.triangle import MAX_ATTENTION_ELEMENTS
from protquant.running.memory.setup import Setup
from protquant.running.memory.terms import Term

__all__ = ["float_block_terms"]


def float_block_terms(setup: Setup, length: int, batch: int, chunk_size: int | None) -> Iterator[Term]:
    """Yield the memory terms of a block other than the first.

    Three pair tensors live throughout: the input of the trunk, the input of the block, and the block's current pair.
    """
    trunk, copies = setup.config.trunk, setup.copies
    channel = batch * length**2 * setup.element
    pair = trunk.pair_dim * channel
    held = (3 if trunk.num_blocks > 1 else 2) * pair
    # The normalized pair and the left operand; for the right one, gate, projection and product, or quantized copies.
    operands = 2 + max(3, 2 + copies["linear_input"], 1 + copies["matmul_operand"])
    # The normalized pair, both operands, a transposed copy of one (of both for batches) and the product; or the product
    # and its transposed norm.
    product = max(5 if batch == 1 else 6, 4 + copies["norm_input"])
    yield Term("triangle multiplication", held + int(max(operands, product) * pair))
    rows = max(1, MAX_ATTENTION_ELEMENTS // (batch * trunk.pair_dim // trunk.pair_head_dim * length**2))
    rows = min(rows, length, chunk_size or length)
    yield Term("triangle attention", held + _attention(setup, length, batch, rows))
    rows = min(length, chunk_size or length)
    part = pair * rows // length
    # The normalized rows and the hidden channels; or the hidden channels, their quantized copies and the output.
    inside = max(1 + copies["linear_input"] + 4, 4 * (1 + copies["linear_input"]), 5 + 4 * bool(copies["linear_input"]))
    # Finished chunks; at the end all chunks and their concatenation.
    done = pair - part
    yield Term("pair transition", held + max(done + int(inside * part), 2 * pair if done else 0))


def _attention(setup: Setup, length: int, batch: int, rows: int) -> int:
    trunk, copies = setup.config.trunk, setup.copies
    heads = trunk.pair_dim // trunk.pair_head_dim
    pair = batch * length**2 * trunk.pair_dim * setup.element
    bias = batch * length**2 * heads * setup.element
    part = pair * rows // length
    logits = batch * rows * length**2 * heads * setup.element
    # Queries, keys and values of the rows, and transposed copies of two; logits without and with the bias, or logits
    # and probabilities, and their quantized copies.
    inside = (5 + copies["matmul_operand"]) * part
    inside += logits * (2 + max(copies["softmax_input"] - 1, copies["softmax_output"], 0))
    # The normalized pair, the bias, and finished chunks; at the end all chunks and their concatenation.
    done = pair - part
    return pair + bias + max(done + int(inside), 2 * pair if done else 0)
