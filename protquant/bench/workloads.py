"""Workloads of language models: random proteins of one length or of many."""

import random

import torch

from protquant.bench.choices import Workload
from protquant.models.alphabet import tokenize
from protquant.residues import AMINO_ACIDS

__all__ = ["LanguageWork", "language_work"]

_ENDS = 2  # <cls> and <eos>
_UNIFORM = (8, 256)
_RAGGED, _SHORTEST, _LONGEST = 64, 50, 400


class LanguageWork:
    """Sequences, and their padded batch of tokens for models without packing.

    Parameters
    ----------
    sequences : list of str

    Attributes
    ----------
    tokens : Tensor, dtype=int64, shape=(b, l)
        Tokens, padded to the longest sequence.
    valid : Tensor, dtype=bool, shape=(b, l)
        False for padding.
    """

    def __init__(self, sequences: list[str], device: torch.device | str = "cpu") -> None:
        self.sequences = sequences
        self.tokens = tokenize(sequences, device)
        lengths = torch.tensor([len(sequence) + _ENDS for sequence in sequences], device=device)
        self.valid = torch.arange(self.tokens.shape[1], device=device) < lengths[:, None]

    def facts(self) -> dict[str, int]:
        """Sizes of the batch, and its share of padding."""
        return {
            "sequences": len(self.sequences),
            "tokens": int(self.valid.sum()),
            "tokens with padding": self.tokens.numel(),
        }


def language_work(workload: Workload, *, seed: int = 0, device: torch.device | str = "cpu") -> LanguageWork:
    """Return the sequences of a workload, which depend on the seed only."""
    generator = random.Random(seed)
    if workload == "uniform":
        lengths = [_UNIFORM[1] - _ENDS] * _UNIFORM[0]
    else:
        lengths = [generator.randint(_SHORTEST, _LONGEST) for _ in range(_RAGGED)]
    return LanguageWork(["".join(generator.choices(AMINO_ACIDS, k=length)) for length in lengths], device)
