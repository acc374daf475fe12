"""Pairing of the residues of a prediction and a reference, by sequence and not by residue number."""

from itertools import islice, permutations, product

import numpy as np
import scipy
from biotite.structure import AtomArray
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.residues import MAX_CA_DISTANCE
from protquant.scores.alignment import ChainAlignment, align_chains, pair_mutations, settle_gaps
from protquant.structures import Reference, reference_from_atoms

__all__ = ["Pairing", "as_reference", "chain_pairings", "match_residues", "pair_residues"]

MIN_IDENTITY = 0.3
"""Fraction of the shorter chain that must be identical; unrelated chains align with up to about a fifth."""
MAX_PAIRINGS = 720
"""Largest number of orders of identical chains that are considered; all orders of six copies."""

Pairing = tuple[tuple[int, int], ...]
"""Pairs of (chain of the prediction, chain of the reference)."""


def as_reference(structure: AtomArray | Reference) -> Reference:
    """Return the structure as a `Reference`; from a biotite array, only the protein is kept."""
    return structure if isinstance(structure, Reference) else reference_from_atoms(structure)


def match_residues(
    prediction: AtomArray | Reference, reference: AtomArray | Reference
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair residues by aligning the sequences of the chains.

    Chains are paired so that most residues are identical. Among copies of one chain, equal names are preferred, then
    the order in the files. If the sequence does not show which of several equal residues is missing, the break in the
    chain decides. A piece of less than about six residues between two missing stretches may still be paired with a
    similar piece beside it.

    Parameters
    ----------
    prediction, reference : AtomArray or Reference
        One or several chains each.

    Returns
    -------
    tuple of ndarray, each of shape (n,)
        Indices of paired residues (rows of ``Reference.ca``) in the prediction and in the reference. For a biotite
        array, they count the residues that `protquant.structures.reference_from_atoms` keeps.

    Raises
    ------
    ProtquantError
        If no chain of the prediction is at least 30 % identical with a chain of the reference.
    """
    predicted, referred = as_reference(prediction), as_reference(reference)
    return pair_residues(predicted, referred, chain_pairings(predicted, referred)[0])


def chain_pairings(prediction: Reference, reference: Reference) -> list[Pairing]:
    """Return the pairings of chains whose sequences agree best; the one that keeps names and order comes first.

    They differ only in the order of identical chains: one pairing if all chains differ, and at most 720.

    Raises
    ------
    ProtquantError
        As `match_residues`.
    """
    ours, theirs = prediction.chain_sequences, reference.chain_sequences
    alignments = {pair: align_chains(*pair) for pair in product(set(ours), set(theirs))}
    value = np.zeros((len(ours), len(theirs)))
    for (i, a), (j, b) in product(enumerate(ours), enumerate(theirs)):
        identical = alignments[a, b].identical
        if identical >= MIN_IDENTITY * min(len(a), len(b)):
            # Both terms together are less than one residue, so that names and order only break ties.
            same_name = prediction.chain_ids[i] == reference.chain_ids[j]
            value[i, j] = identical + (0.5 * same_name + 0.25 * (i == j)) / (len(ours) + len(theirs))
    base = [(i, j) for i, j in _assign(value) if value[i, j] > 0]
    if not base:
        raise ProtquantError(
            f"{prediction.name} and {reference.name}: no chains with at least {MIN_IDENTITY:.0%} identical residues. "
            "Are these structures of the same protein?"
        )
    pairings: dict[Pairing, None] = {}
    # The reference varies fastest: with equally many copies on both sides, its orders alone give all pairings. The
    # prediction varies too, because a trimer compared with a dimer may leave out any of its three chains.
    for ours_order, theirs_order in islice(product(_copy_orders(ours), _copy_orders(theirs)), MAX_PAIRINGS):
        pairings[tuple(sorted((ours_order[i], theirs_order[j]) for i, j in base))] = None
    return list(pairings)


def _assign(value: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the pairs of rows and columns with the largest sum of values."""
    if value.shape == (1, 1):
        return [(0, 0)]  # avoids scipy.optimize, whose import takes as long as scoring two chains
    rows, columns = scipy.optimize.linear_sum_assignment(value, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _copy_orders(sequences: tuple[str, ...]) -> list[dict[int, int]]:
    """Return the permutations that only exchange identical chains, as maps from chain to chain, the identity first."""
    groups = [[i for i, a in enumerate(sequences) if a == sequence] for sequence in dict.fromkeys(sequences)]
    members = [i for group in groups for i in group]
    # Limit each group too, because product() holds all its inputs in memory.
    orders = product(*(islice(permutations(group), MAX_PAIRINGS) for group in groups))
    return [
        dict(zip(members, (i for group in order for i in group), strict=True)) for order in islice(orders, MAX_PAIRINGS)
    ]


def pair_residues(
    prediction: Reference, reference: Reference, pairing: Pairing
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of paired residues for a given pairing of chains; see `match_residues`."""
    ours, theirs = [], []
    for i, j in pairing:
        rows = np.flatnonzero(prediction.chain_index == i)
        columns = np.flatnonzero(reference.chain_index == j)
        letters = (prediction.chain_sequences[i], reference.chain_sequences[j])
        broken = _broken(prediction.ca[rows]), _broken(reference.ca[columns])
        numbers = prediction.residue_numbers[rows], reference.residue_numbers[columns]
        aligned = pair_mutations(*_settled(align_chains(*letters), letters, broken), letters, broken, numbers)
        ours.append(rows[aligned[0]])
        theirs.append(columns[aligned[1]])
    return np.concatenate(ours), np.concatenate(theirs)


def _settled(
    aligned: ChainAlignment, letters: tuple[str, str], broken: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = settle_gaps(aligned.first, aligned.second, letters, broken[1])
    second = settle_gaps(aligned.second, first, letters[::-1], broken[0])
    return first, second


def _broken(ca: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether the chain breaks after each residue; its end and missing atoms count as breaks."""
    distance = np.linalg.norm(np.diff(ca, axis=0), axis=-1)
    return np.append(~(distance <= MAX_CA_DISTANCE), True)
