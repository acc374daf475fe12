"""Pairing the residues of two chains that are meant to be the same protein."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal
from numpy.typing import NDArray

__all__ = ["ChainAlignment", "align_chains", "pair_mutations", "settle_gaps"]

SAME_PROTEIN_IDENTITY = 0.9
"""Fraction of the shorter chain that must be identical for the strict alignment to stand."""

# Strict scoring, for one protein with residues missing: a gap of any length costs less than one match brings, so that
# even a lone residue between two gaps is paired, and a mismatch costs enough not to be paired in place of a gap.
_MATCH, _MISMATCH, _STRICT_GAPS = 100, -80, (-90, -1)
_HOMOLOG_GAPS = (-10, -1)
_UNKNOWN = "X"
_WON_BY_GAPS = 2
"""Identical pairs that gaps of both chains may win and are closed all the same: chance gives as many."""
_FEW = 2
"""Residues at an end of a chain that are paired whatever their letters, where both chains are there."""
_GIVEN_UP = 3
"""Pairs at an end of a chain that may give way to others."""


class ChainAlignment(NamedTuple):
    """Paired positions of two chains."""

    first: NDArray[np.int64]
    """Positions in the first chain, increasing, shape (n,)."""
    second: NDArray[np.int64]
    """Positions in the second chain, increasing, shape (n,)."""
    identical: int
    """How many pairs are of the same letter, unknown residues (``X``) counting as any."""


@lru_cache(maxsize=256)
def align_chains(first: str, second: str) -> ChainAlignment:
    """Align two protein sequences globally, end gaps free.

    Equal sequences are paired as they are. Otherwise they are taken for one protein of which residues are missing;
    if less than nine tenths of the shorter chain come out identical, they are aligned as homologs (BLOSUM62).
    """
    if first == second:
        every = np.arange(len(first))
        return ChainAlignment(every, every, len(first))
    strict = _align(first, second, _identity_matrix(), _STRICT_GAPS)
    if strict.identical >= SAME_PROTEIN_IDENTITY * min(len(first), len(second)):
        return strict
    return _align(first, second, SubstitutionMatrix.std_protein_matrix(), _HOMOLOG_GAPS)


def settle_gaps(
    first: NDArray[np.int64], second: NDArray[np.int64], letters: tuple[str, str], broken: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Move gaps in the second chain to where that chain is broken, where the letters leave the choice.

    When a residue beside one of the same letter is missing (``GAAL`` against ``GAL``), the sequences cannot tell
    which of the two it was, but the coordinates can: there is a break in the chain.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Paired positions.
    letters : tuple of str
        Sequences of the first and the second chain.
    broken : ndarray, shape (length of the second chain,)
        Whether the bond from each residue to the next is missing.

    Returns
    -------
    ndarray, shape (n,)
        New positions in the first chain; those in the second stay.
    """
    settled = first.copy()
    for k in np.flatnonzero((np.diff(first) > 1) & (np.diff(second) == 1)):
        gap = int(settled[k + 1] - settled[k] - 1)
        if gap < 1 or broken[second[k]]:
            continue
        left = _slide_left(settled, second, letters, broken, int(k), gap)
        right = _slide_right(settled, second, letters, broken, int(k) + 1, gap)
        if left is not None:
            settled[left : k + 1] += gap
        elif right is not None:
            settled[k + 1 : right + 1] -= gap
    return settled


def pair_mutations(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    letters: tuple[str, str],
    broken: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Close gaps of one chain that gaps of the other make up for, where neither chain is broken.

    Beside point mutations an alignment opens gaps in both chains to win a letter. But where both chains go on unbroken
    from one pair to another, with as many residues between, nothing is missing, and these are pairs too. So are two
    residues beyond the first and the last pair, and more where a third of the letters are the same.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Paired positions.
    letters : tuple of str
        Sequences of the chains.
    broken : tuple of ndarray
        For each residue of a chain whether the bond to the next is missing.
    numbers : tuple of ndarray
        Of the residues of each chain, in the file.

    Returns
    -------
    tuple of ndarray
        All pairs, increasing.
    """
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    if not pairs:
        return first, second
    result = [pairs[0]]
    position = 0
    while position + 1 < len(pairs):
        i, j = pairs[position]
        follows = pairs[position + 1] == (i + 1, j + 1)
        end = position + 1 if follows else _made_up(pairs, position, letters, broken)
        if end is None:
            position += 1
            result.append(pairs[position])
        else:
            result += [(i + k, j + k) for k in range(1, pairs[end][0] - i + 1)]
            position = end
    for step in (-1, 1):
        result = _extend(result, letters, broken, numbers, step)
    return np.array([i for i, _ in result], dtype=np.int64), np.array([j for _, j in result], dtype=np.int64)


def _made_up(
    pairs: list[tuple[int, int]],
    position: int,
    letters: tuple[str, str],
    broken: tuple[NDArray[np.bool_], NDArray[np.bool_]],
) -> int | None:
    """The next pair that is as far from this one in both chains, if all between may be paired."""
    i, j = pairs[position]
    for end in range(position + 1, len(pairs)):
        m, n = pairs[end]
        if broken[0][i:m].any() or broken[1][j:n].any():
            return None
        if m - i == n - j:
            won = sum(_alike(letters, pair) for pair in pairs[position + 1 : end])
            without = sum(_alike(letters, (i + k, j + k)) for k in range(1, m - i))
            return end if won - without <= _WON_BY_GAPS else None
    return None


def _alike(letters: tuple[str, str], pair: tuple[int, int]) -> bool:
    return letters[0][pair[0]] == letters[1][pair[1]]


def _extend(
    pairs: list[tuple[int, int]],
    letters: tuple[str, str],
    broken: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
    step: int,
) -> list[tuple[int, int]]:
    """Pairs that go on beyond the first (step -1) or the last (step 1), as far as the chains and their numbers do.

    A few pairs at that end give way, if more come of it: an end, too, may be mutated.
    """
    outward = pairs[::step]  # the end is last
    for given_up in range(min(_GIVEN_UP, len(outward) - 1) + 1):
        kept, lost = outward[: len(outward) - given_up], outward[len(outward) - given_up :]
        beyond = _plausible(list(_beyond(kept[-1], broken, numbers, step)), letters)
        won = sum(_alike(letters, pair) for pair in lost) - sum(_alike(letters, pair) for pair in beyond)
        if len(beyond) > given_up and won <= _WON_BY_GAPS:
            return (kept + beyond)[::step]
    return pairs


def _plausible(beyond: list[tuple[int, int]], letters: tuple[str, str]) -> list[tuple[int, int]]:
    """The longest beginning that may be one protein: of a tag and another tag hardly a letter is the same."""
    alike = np.cumsum([_alike(letters, pair) for pair in beyond])
    longest = [k for k in range(1, len(beyond) + 1) if k <= _FEW or 3 * alike[k - 1] >= k]
    return beyond[: longest[-1]] if longest else []


def _beyond(
    pair: tuple[int, int],
    broken: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
    step: int,
) -> Iterator[tuple[int, int]]:
    i, j = pair
    shift = numbers[0][i] - numbers[1][j]
    while True:
        m, n = i + step, j + step
        if not (0 <= m < len(numbers[0]) and 0 <= n < len(numbers[1])):
            return
        if broken[0][min(i, m)] or broken[1][min(j, n)] or numbers[0][m] - numbers[1][n] != shift:
            return
        yield m, n
        i, j = m, n


def _slide_left(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    letters: tuple[str, str],
    broken: NDArray[np.bool_],
    last: int,
    gap: int,
) -> int | None:
    """Least far pair such that it and all up to pair `last` can move over the gap that follows, to a break."""
    for m in range(last, -1, -1):
        if letters[0][first[m] + gap] != letters[1][second[m]]:
            return None
        if m == 0 or second[m] - second[m - 1] != 1:
            return m if second[m] == 0 else None
        if broken[second[m - 1]]:
            return m
    return None


def _slide_right(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    letters: tuple[str, str],
    broken: NDArray[np.bool_],
    start: int,
    gap: int,
) -> int | None:
    """Least far pair such that all from pair `start` to it can move back over the gap before them, to a break."""
    for m in range(start, len(first)):
        if letters[0][first[m] - gap] != letters[1][second[m]]:
            return None
        if broken[second[m]]:
            return m
        if m + 1 == len(first) or second[m + 1] - second[m] != 1:
            return None
    return None


def _align(first: str, second: str, matrix: SubstitutionMatrix, gaps: tuple[int, int]) -> ChainAlignment:
    alignment = align_optimal(
        ProteinSequence(first), ProteinSequence(second), matrix, gap_penalty=gaps, terminal_penalty=False, max_number=1
    )[0]
    paired = alignment.trace[(alignment.trace >= 0).all(axis=1)]
    one, two = paired[:, 0], paired[:, 1]
    identical = sum(first[i] == second[j] or _UNKNOWN in (first[i], second[j]) for i, j in zip(one, two, strict=True))
    return ChainAlignment(one, two, identical)


def _identity_matrix() -> SubstitutionMatrix:
    alphabet = ProteinSequence.alphabet
    scores = np.where(np.eye(len(alphabet), dtype=bool), _MATCH, _MISMATCH)
    unknown = alphabet.encode(_UNKNOWN)
    scores[unknown, :] = scores[:, unknown] = 0
    return SubstitutionMatrix(alphabet, alphabet, scores.astype(np.int32))
