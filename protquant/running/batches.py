"""Batches of sequences of similar length within a budget of tokens."""

from collections.abc import Sequence

from protquant.models.complexes import LINKER

__all__ = ["length_batches", "model_length"]


def model_length(sequence: str) -> int:
    """Residues that the model sees: those of all chains, and of the linkers between them."""
    chains = sequence.split(":")
    return sum(map(len, chains)) + len(LINKER) * (len(chains) - 1)


def length_batches(sequences: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Indices of `sequences`, sorted by length and cut so that a padded batch has at most `max_tokens` residues.

    A sequence longer than the budget is a batch of its own; 0 makes every sequence one.
    """
    order = sorted(range(len(sequences)), key=lambda i: model_length(sequences[i]))
    batches: list[list[int]] = []
    for index in order:
        # Sorted, so the newest is the longest, to which the batch is padded.
        if batches and (len(batches[-1]) + 1) * model_length(sequences[index]) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
