"""Batches of sequences of similar length within a budget of tokens."""

from collections.abc import Sequence

from protquant.models.complexes import LINKER

__all__ = ["length_batches", "model_length"]


def model_length(sequence: str) -> int:
    """Return the number of residues in the model's input: those of all chains and of the linkers between them."""
    chains = sequence.split(":")
    return sum(map(len, chains)) + len(LINKER) * (len(chains) - 1)


def length_batches(sequences: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Return batches of indices of `sequences`, sorted by length; a padded batch has at most `max_tokens` residues.

    A sequence longer than the budget is a batch of its own. With 0, each sequence is a batch.
    """
    order = sorted(range(len(sequences)), key=lambda i: model_length(sequences[i]))
    batches: list[list[int]] = []
    for index in order:
        # The sequences are sorted, so this one is the longest, and the batch is padded to its length.
        if batches and (len(batches[-1]) + 1) * model_length(sequences[index]) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
