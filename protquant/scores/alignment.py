"""Pair the residues of two chains of the same protein."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal
from numpy.typing import NDArray

__all__ = ["ChainAlignment", "align_chains", "pair_mutations", "settle_gaps"]

SAME_PROTEIN_IDENTITY = 0.9
"""Fraction of the shorter chain that must be identical for the strict alignment to be accepted."""

# Strict scoring, for one protein with missing residues: a match outweighs a gap of any length, so that even a single
# residue between two gaps is paired; a mismatch costs so much that a gap is better.
_MATCH, _MISMATCH, _STRICT_GAPS = 100, -80, (-90, -1)
_HOMOLOG_GAPS = (-10, -1)
_UNKNOWN = "X"
_WON_BY_GAPS = 2
"""Number of identical pairs that may be lost when opposite gaps are closed; an alignment gains as many by chance."""
_FEW = 2
"""Number of residues at an end that are paired even if their letters differ, if both chains have them."""
_GIVEN_UP = 3
"""Number of pairs at an end of the alignment that may be replaced by others."""


class ChainAlignment(NamedTuple):
    """Paired positions of two chains."""

    first: NDArray[np.int64]
    """Positions in the first chain, increasing, shape (n,)."""
    second: NDArray[np.int64]
    """Positions in the second chain, increasing, shape (n,)."""
    identical: int
    """Number of pairs with equal letters; an unknown residue (``X``) is equal to any."""


@lru_cache(maxsize=256)
def align_chains(first: str, second: str) -> ChainAlignment:
    """Align two protein sequences globally, without a penalty for gaps at the ends.

    Equal sequences are paired residue by residue. Others are aligned as one protein with missing residues; if less than
    90 % of the shorter chain is then identical, they are aligned as homologs (BLOSUM62).
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
    """Move gaps in the second chain to its breaks, if the letters are equal at both places.

    If one of two equal neighbors is missing (``GAAL`` against ``GAL``), the sequences do not show which one, but the
    break in the coordinates does.

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
        New positions in the first chain; those in the second do not change.
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
    """Close opposite gaps in the two chains where neither chain is broken.

    Next to point mutations, an alignment opens gaps in both chains to gain an identical pair. If both chains are
    unbroken between two pairs and have equally many residues there, no residue is missing, so these residues are
    paired. Two residues beyond the first and the last pair are also paired, and more if a third of them are identical.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Paired positions.
    letters : tuple of str
        Sequences of the chains.
    broken : tuple of ndarray
        For each chain, whether the bond from each residue to the next is missing.
    numbers : tuple of ndarray
        For each chain, the residue numbers in the file.

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
        end = position + 1 if follows else _end_of_opposite_gaps(pairs, position, letters, broken)
        if end is None:
            position += 1
            result.append(pairs[position])
        else:
            result += [(i + k, j + k) for k in range(1, pairs[end][0] - i + 1)]
            position = end
    for step in (-1, 1):
        result = _extend(result, letters, broken, numbers, step)
    return np.array([i for i, _ in result], dtype=np.int64), np.array([j for _, j in result], dtype=np.int64)


def _end_of_opposite_gaps(
    pairs: list[tuple[int, int]],
    position: int,
    letters: tuple[str, str],
    broken: tuple[NDArray[np.bool_], NDArray[np.bool_]],
) -> int | None:
    """Return the next pair at the same distance in both chains, if all residues in between may be paired."""
    i, j = pairs[position]
    for end in range(position + 1, len(pairs)):
        m, n = pairs[end]
        if broken[0][i:m].any() or broken[1][j:n].any():
            return None
        if m - i == n - j:
            gained = sum(_identical(letters, pair) for pair in pairs[position + 1 : end])
            without = sum(_identical(letters, (i + k, j + k)) for k in range(1, m - i))
            return end if gained - without <= _WON_BY_GAPS else None
    return None


def _identical(letters: tuple[str, str], pair: tuple[int, int]) -> bool:
    return letters[0][pair[0]] == letters[1][pair[1]]


def _extend(
    pairs: list[tuple[int, int]],
    letters: tuple[str, str],
    broken: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
    step: int,
) -> list[tuple[int, int]]:
    """Add pairs before the first (step -1) or after the last (step 1), as long as chains and numbers continue.

    Up to 3 pairs at that end are replaced if this gives more pairs, because the end may be mutated too.
    """
    outward = pairs[::step]  # the end to extend comes last
    for given_up in range(min(_GIVEN_UP, len(outward) - 1) + 1):
        inner, lost = outward[: len(outward) - given_up], outward[len(outward) - given_up :]
        beyond = _plausible(list(_beyond(inner[-1], broken, numbers, step)), letters)
        loss = sum(_identical(letters, pair) for pair in lost) - sum(_identical(letters, pair) for pair in beyond)
        if len(beyond) > given_up and loss <= _WON_BY_GAPS:
            return (inner + beyond)[::step]
    return pairs


def _plausible(beyond: list[tuple[int, int]], letters: tuple[str, str]) -> list[tuple[int, int]]:
    """Return the longest beginning that may be one protein; two different tags share hardly any letter."""
    identical = np.cumsum([_identical(letters, pair) for pair in beyond])
    longest = [k for k in range(1, len(beyond) + 1) if k <= _FEW or 3 * identical[k - 1] >= k]
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
    """Return the largest m such that pairs m to `last` can move across the gap after them, up to a break before m."""
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
    """Return the smallest m such that pairs `start` to m can move across the gap before them, up to a break after m."""
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
