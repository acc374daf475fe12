"""Predict masked residues with a language model."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.models import LanguageModel
from protquant.options import MASK_EVERY
from protquant.proteins import clean_sequence
from protquant.residues import AMINO_ACIDS
from protquant.running.memory import is_out_of_memory

__all__ = ["masked_logits"]

_TOKENS_AT_ONCE = 2048


def masked_logits(
    model: LanguageModel, sequence: str, every: int | None = MASK_EVERY
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Mask every residue once, and return the model's logits for it.

    Parameters
    ----------
    sequence : str
        One chain.
    every : int, optional
        Number of passes: residue i is masked in pass i mod `every`. None masks one residue per pass, as Salazar et al.
        2020.

    Returns
    -------
    logits : ndarray, shape (n, v)
        Logits over the model's alphabet, for the n residues that are one of the 20 amino acids, in order.
    truth : ndarray of int, shape (n,)
        Tokens of these residues.

    Raises
    ------
    ProtquantError
        If there are several chains or no known residue, the model has no language-model head, it does not
        fit in memory, or a logit is not finite.
    """
    if every is not None and every < 1:
        raise ProtquantError(
            f"every {every}th residue cannot be hidden; give 1 or more, or leave it out for one by one"
        )
    cleaned, _ = clean_sequence(sequence)
    if ":" in cleaned:
        raise ProtquantError("a language model is scored on single chains; give each chain as a record of its own")
    tokens = model.tokenize([cleaned])
    asked = torch.tensor(
        [i for i, letter in enumerate(cleaned, start=1) if letter in AMINO_ACIDS], device=tokens.device
    )
    logits: Tensor | None = None
    try:
        with torch.no_grad():
            for rows, positions, batch in _passes(tokens, model.mask_token, asked, every):
                answer = model.logits(batch)[rows, positions].float()
                if logits is None:
                    logits = answer.new_zeros(tokens.shape[1], answer.shape[-1])
                logits[positions] = answer
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ProtquantError(f"{len(cleaned)} residues ran out of memory; use a machine with more") from error
    assert logits is not None
    values = logits[asked].cpu().numpy()
    if not np.isfinite(values).all():
        raise ProtquantError("a logit is not finite; predict with --dtype float32")
    return values, tokens[0, asked].cpu().numpy()


def _passes(
    tokens: Int[Tensor, "1 l"], mask_token: int, asked: Int[Tensor, " n"], every: int | None
) -> Iterator[tuple[Int[Tensor, " k"], Int[Tensor, " k"], Int[Tensor, "b l"]]]:
    """Yield the rows and positions that are masked in a batch, and the batch."""
    length = tokens.shape[1]
    count = min(every or length, length)
    size = max(1, _TOKENS_AT_ONCE // length)
    turn = (asked - 1) % count
    # Passes without masked residues are left out.
    turns = turn.unique()
    for start in range(0, len(turns), size):
        here = turns[start : start + size]
        rows, which = (turn[None, :] == here[:, None]).nonzero(as_tuple=True)
        positions = asked[which]
        batch = tokens.repeat(len(here), 1)
        batch[rows, positions] = mask_token
        yield rows, positions, batch
