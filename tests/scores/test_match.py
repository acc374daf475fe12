"""Residues are paired by sequence, whatever their numbers and whichever are missing."""

from dataclasses import replace

import numpy as np
import pytest
from biotite.structure import AtomArray, concatenate
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from protquant.errors import ProtquantError
from protquant.scores import match_residues, score_structures
from protquant.scores.alignment import align_chains
from protquant.structures import Reference, reference_from_atoms


def without(reference: Reference, missing: NDArray[np.int64]) -> Reference:
    """The structure with some of its residues cut out."""
    residue = np.searchsorted(reference.residue_starts, np.arange(len(reference.atoms)), side="right") - 1
    return reference_from_atoms(reference.atoms[~np.isin(residue, missing)], "cut")


def moved(atoms: AtomArray, chain_id: str, shift: tuple[float, float, float], turn: float = 0.0) -> AtomArray:
    """A copy under another chain name, turned about z and shifted."""
    copy = atoms.copy()
    copy.coord = Rotation.from_rotvec([0, 0, turn]).apply(atoms.coord - atoms.coord.mean(axis=0)) + np.array(shift)
    copy.chain_id[:] = chain_id
    return copy


@settings(deadline=None, max_examples=40)
@given(loops=st.lists(st.tuples(st.integers(6, 30), st.integers(1, 15)), min_size=1, max_size=5))
def test_missing_stretches_between_pieces_of_six_residues_are_found_exactly(
    chain: Reference, loops: list[tuple[int, int]]
) -> None:
    missing, end = [], 0
    for present, absent in loops:
        missing += range(end + present, end + present + absent)
        end += present + absent
    cut = without(chain, np.array([i for i in missing if i < len(chain) - 3]))
    ours, theirs = match_residues(chain, cut)
    assert theirs.tolist() == list(range(len(cut)))
    assert np.array_equal(chain.ca[ours], cut.ca)
    theirs, ours = match_residues(cut, chain)
    assert np.array_equal(chain.ca[ours], cut.ca)


def test_gap_beside_equal_letters_lies_where_the_chain_breaks(references: dict[str, Reference]) -> None:
    checked = 0
    for reference in references.values():
        for i in range(1, len(reference) - 2):
            if reference.sequence[i] == reference.sequence[i + 1]:
                for missing in (i, i + 1):
                    cut = without(reference, np.array([missing]))
                    ours, _ = match_residues(reference, cut)
                    assert missing not in ours
                    checked += 1
            if checked > 60:
                return


def test_numbers_insertion_codes_and_chain_names_do_not_matter(chain: Reference) -> None:
    noisy = chain.atoms.copy()
    noisy.coord += np.random.default_rng(3).normal(size=noisy.coord.shape)
    renumbered = noisy.copy()
    residue = np.searchsorted(chain.residue_starts, np.arange(len(noisy)), side="right") - 1
    renumbered.res_id = 500 - residue // 3
    renumbered.ins_code = np.array(["", "A", "B"])[residue % 3]
    renumbered.chain_id[:] = "Q"
    assert score_structures(renumbered, chain) == score_structures(noisy, chain)


def test_missing_residues_give_the_scores_of_the_residues_present(chain: Reference) -> None:
    cut = without(chain, np.array([0, 1, 30, 31, 32, 33, 70, 125]))
    scores = score_structures(chain, cut)
    assert scores.tm_score == pytest.approx(1.0, abs=1e-6)
    assert (scores.gdt_ts, scores.lddt_ca) == (1.0, 1.0)
    assert (scores.n_aligned, scores.reference_length) == (118, 118)
    other_way = score_structures(cut, chain)
    assert other_way.tm_score == pytest.approx(118 / 126, abs=1e-6)
    assert other_way.lddt_ca < 1.0
    assert (other_way.n_aligned, other_way.reference_length) == (118, 126)


def test_point_mutations_are_paired(chain: Reference) -> None:
    mutated = list(chain.sequence)
    for i in (10, 50, 51, 90):
        mutated[i] = "W" if mutated[i] != "W" else "A"
    aligned = align_chains("".join(mutated), chain.sequence)
    assert aligned.first.tolist() == aligned.second.tolist() == list(range(len(chain)))
    assert aligned.identical == len(chain) - 4


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(3, 122), max_size=12), st.integers(0, 2**32))
def test_mutations_never_cost_a_pair_wherever_they_lie(chain: Reference, places: set[int], seed: int) -> None:
    letters = np.random.default_rng(seed).choice(list("ACDEFGHIKLMNPQRSTVWY"), size=len(chain))
    mutated = "".join(str(letters[i]) if i in places else letter for i, letter in enumerate(chain.sequence))
    ours, theirs = match_residues(replace(chain, sequence=mutated), chain)
    assert ours.tolist() == theirs.tolist() == list(range(len(chain)))


def test_neighbors_that_were_exchanged_are_paired_as_they_lie(chain: Reference) -> None:
    for i in range(0, len(chain) - 1, 5):
        letters = list(chain.sequence)
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
        exchanged = replace(chain, sequence="".join(letters))
        for pair in (match_residues(exchanged, chain), match_residues(chain, exchanged)):
            assert pair[0].tolist() == pair[1].tolist() == list(range(len(chain)))


def test_residues_that_each_lacks_elsewhere_are_not_paired_over_the_breaks(chain: Reference) -> None:
    ours, theirs = match_residues(without(chain, np.array([60])), without(chain, np.array([62])))
    first, second = np.delete(np.arange(len(chain)), 60), np.delete(np.arange(len(chain)), 62)
    assert np.array_equal(first[ours], second[theirs])
    assert len(ours) == len(chain) - 2


def test_tags_that_are_others_are_not_taken_for_mutations(chain: Reference) -> None:
    ours, theirs = "GSSHH" + chain.sequence[5:], "AAPQD" + chain.sequence[5:]
    pair = match_residues(replace(chain, sequence=ours), replace(chain, sequence=theirs))
    assert pair[0].tolist() == pair[1].tolist()
    assert len(chain) - 5 <= len(pair[0]) <= len(chain) - 5 + 2


def test_unrelated_structures_are_refused(references: dict[str, Reference]) -> None:
    with pytest.raises(ProtquantError, match="same protein"):
        match_residues(references["1ahsA"], references["3a4rA"])


def test_complex_is_scored_whatever_the_order_of_its_chains(references: dict[str, Reference]) -> None:
    a, b = references["1i8nA"].atoms, references["2xdgA"].atoms
    first = concatenate([moved(a, "A", (0, 0, 0)), moved(b, "B", (25, 0, 0))])
    second = concatenate([moved(b, "X", (25, 0, 0)), moved(a, "Y", (0, 0, 0))])
    scores = score_structures(second, first)
    assert scores.tm_score == pytest.approx(1.0, abs=1e-6)
    assert scores.n_aligned == scores.reference_length == 89 + 89


def test_copies_of_a_chain_are_paired_as_they_lie_in_space(references: dict[str, Reference]) -> None:
    atoms = references["2xdgA"].atoms
    places: list[tuple[float, float, float]] = [(0, 0, 0), (40, 0, 0), (0, 60, 10)]
    turns = (0.0, 1.0, 2.5)
    reference = concatenate([moved(atoms, c, p, t) for c, p, t in zip("ABC", places, turns, strict=True)])
    order = [2, 0, 1]
    shuffled = concatenate([moved(atoms, c, places[i], turns[i]) for c, i in zip("ABC", order, strict=True)])
    assert score_structures(shuffled, reference).tm_score == pytest.approx(1.0, abs=1e-6)
    part = shuffled[shuffled.chain_id != "A"]
    assert score_structures(part, reference).tm_score == pytest.approx(2 / 3, abs=1e-6)


def test_many_copies_do_not_take_forever(chain: Reference) -> None:
    trace = chain.atoms[chain.atoms.atom_name == "CA"][:20]
    names = [f"c{i}" for i in range(14)]
    crowd = concatenate([moved(trace, name, (30.0 * i, 0, 0)) for i, name in enumerate(names)])
    assert score_structures(crowd, crowd).tm_score == pytest.approx(1.0, abs=1e-6)


def test_scores_have_the_documented_names(chain: Reference) -> None:
    scores = score_structures(chain, chain)
    names = ["tm_score", "gdt_ts", "lddt_ca", "rmsd_ca", "n_aligned", "reference_length"]
    assert list(scores.to_dict()) == names
