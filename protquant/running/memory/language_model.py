"""Memory of the language model of ESMFold. The hidden states of all layers stay in memory, for the layer mix."""

from collections.abc import Iterator

from protquant.kernels.cpu.sequence_attention import LOGITS, LONGEST
from protquant.kernels.sequence_attention import PROJECTED_BYTES
from protquant.running.memory.setup import Setup
from protquant.running.memory.terms import Term

__all__ = ["language_model_terms"]

_ENDS = 2  # <cls> and <eos>


def language_model_terms(setup: Setup, length: int, batch: int) -> Iterator[Term]:
    """Yield the memory terms of a batch of `batch` proteins of `length` residues."""
    lm = setup.config.lm
    tokens = batch * (length + _ENDS)
    row = lm.dim * setup.element  # one token of the residual stream
    hidden = tokens * (lm.num_layers + 1) * row
    # Twice the hidden states: as separate and stacked tensors; later stacked and transposed for the layer mix.
    yield Term("hidden states of the language model", 2 * hidden + tokens * row)
    if setup.execution == "integer":
        yield Term("layer of the language model", hidden + tokens * row + _integer_layer(setup, length, batch))
    else:
        yield Term("layer of the language model", hidden + tokens * row + _float_layer(setup, length, batch))


def _float_layer(setup: Setup, length: int, batch: int) -> int:
    lm = setup.config.lm
    tokens = batch * (length + _ENDS)
    row = lm.dim * setup.element
    # The normalized residual, queries, keys, values, and rotated queries and keys.
    operands = 6 * tokens * row
    # Logits and their masked copy, or the masked copy and probabilities, with their quantized copies. They are always
    # float32.
    maps = tokens * (length + _ENDS) * lm.num_heads * 4
    attention = operands + maps * (2 + max(setup.copies["softmax_input"] - 1, setup.copies["softmax_output"], 0))
    # Hidden channels before and after GELU, or quantized. The probabilities, which the layer returns, live too.
    wide = tokens * lm.ffn_dim * setup.element
    perceptron = maps + tokens * row + wide * (1 + max(1, setup.copies["linear_input"]))
    return int(max(attention, perceptron)) + setup.unpacked_layer


def _integer_layer(setup: Setup, length: int, batch: int) -> int:
    lm, backend = setup.config.lm, setup.backend
    assert backend is not None
    sequence = length + _ENDS
    most = backend.sequence_tokens
    tokens = sequence * (batch if most is None else min(batch, max(1, most // sequence)))
    projected = min(tokens, max(1, PROJECTED_BYTES // (12 * lm.dim)))
    # Queries and keys with one byte per element; values and the output of attention in float32.
    operands = tokens * lm.dim * (1 + 1 + 4 + 4)
    # Input of the projections in float and as codes; their output in float32 and as codes.
    projection = projected * lm.dim * (4 + 1 + 3 * (4 + 1))
    # Products of queries and keys, logits and probabilities, for the heads that are processed together.
    logits = 12 * min(lm.num_heads, max(1, LOGITS // sequence**2)) * sequence**2 if sequence <= LONGEST else 0
    # The normalized residual, its codes, and codes of the hidden channels.
    perceptron = min(tokens, backend.tile_tokens or tokens) * (5 * lm.dim + lm.ffn_dim)
    return max(operands + max(projection, logits), perceptron) + setup.unpacked_layer
