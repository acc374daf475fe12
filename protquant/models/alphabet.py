"""The ESM-2 alphabet: 33 tokens, in the order of the released checkpoints."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["CLS", "EOS", "MASK", "PAD", "TOKENS", "UNK", "tokenize"]

TOKENS: tuple[str, ...] = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO",
    *(".", "-", "<null_1>", "<mask>"),
)
CLS, PAD, EOS, UNK = 0, 1, 2, 3
MASK = TOKENS.index("<mask>")
_INDEX = {token: index for index, token in enumerate(TOKENS)}


def tokenize(sequences: Sequence[str], device: torch.device | str = "cpu") -> Int[Tensor, "batch tokens"]:
    """Return tokens `<cls> ... <eos> <pad>...` of sequences; letters outside the alphabet become `<unk>`.

    Returns
    -------
    Tensor, dtype=int64, shape=(len(sequences), longest + 2)
    """
    tokens = torch.full((len(sequences), max(map(len, sequences)) + 2), PAD)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence) + 2] = torch.tensor([CLS, *(_INDEX.get(letter, UNK) for letter in sequence), EOS])
    return tokens.to(device)
