"""Memory of the blocks of a folding trunk in float, where a recipe may be simulated: quantized and dequantized."""

from collections.abc import Iterator

from protquant.models.triangle import MAX_ATTENTION_ELEMENTS
from protquant.running.memory.setup import Setup
from protquant.running.memory.terms import Term

__all__ = ["float_block_terms"]


def float_block_terms(setup: Setup, length: int, batch: int, chunk_size: int | None) -> Iterator[Term]:
    """Terms of a block that is not the first, in units of the pair.

    Three pairs live throughout: that which the trunk was entered with, that which the block was entered with, and the
    block's own.
    """
    trunk, copies = setup.config.trunk, setup.copies
    channel = batch * length**2 * setup.element
    pair = trunk.pair_dim * channel
    held = (3 if trunk.num_blocks > 1 else 2) * pair
    # The normalized pair, the left operand; of the right one gate, projection and product, or what quantizers make.
    operands = 2 + max(3, 2 + copies["linear_input"], 1 + copies["matmul_operand"])
    # The normalized pair, both operands, one turned for the product (of a batch both), the product; then product and
    # its norm, turned.
    product = max(5 if batch == 1 else 6, 4 + copies["norm_input"])
    yield Term("triangle multiplication", held + int(max(operands, product) * pair))
    rows = max(1, MAX_ATTENTION_ELEMENTS // (batch * trunk.pair_dim // trunk.pair_head_dim * length**2))
    rows = min(rows, length, chunk_size or length)
    yield Term("triangle attention", held + _attention(setup, length, batch, rows))
    rows = min(length, chunk_size or length)
    part = pair * rows // length
    # The normalized rows and the hidden channels; or these, what their quantizer makes, and the output.
    inside = max(1 + copies["linear_input"] + 4, 4 * (1 + copies["linear_input"]), 5 + 4 * bool(copies["linear_input"]))
    # Chunks that are done, then all of them and their concatenation.
    done = pair - part
    yield Term("pair transition", held + max(done + int(inside * part), 2 * pair if done else 0))


def _attention(setup: Setup, length: int, batch: int, rows: int) -> int:
    trunk, copies = setup.config.trunk, setup.copies
    heads = trunk.pair_dim // trunk.pair_head_dim
    pair = batch * length**2 * trunk.pair_dim * setup.element
    bias = batch * length**2 * heads * setup.element
    part = pair * rows // length
    logits = batch * rows * length**2 * heads * setup.element
    # Queries, keys and values of the rows, and two of them turned for a product; products of queries and keys without
    # and with the bias, or logits and probabilities, and what a quantizer of either makes.
    inside = (5 + copies["matmul_operand"]) * part
    inside += logits * (2 + max(copies["softmax_input"] - 1, copies["softmax_output"], 0))
    # Beside the normalized pair and the bias: chunks that are done, then all of them and their concatenation.
    done = pair - part
    return pair + bias + max(done + int(inside), 2 * pair if done else 0)
