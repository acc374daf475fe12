"""TM-score, GDT-TS and RMSD are those of the TMscore program, and behave at the limits."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from protquant.errors import ProtquantError
from protquant.scores import gdt_ts, rmsd_ca, tm_distance_scale, tm_score
from protquant.structures import Reference


def test_scores_equal_the_tmscore_program_on_200_perturbed_chains(
    references: dict[str, Reference], answers: list[dict[str, str]], perturb: Callable[..., NDArray[np.float64]]
) -> None:
    assert len(answers) == 200
    assert {row["name"] for row in answers} == references.keys()
    for row in answers:
        ca = references[row["name"]].ca
        moved = perturb(ca, row["kind"], float(row["magnitude"]), float(row["dropped"]), int(row["seed"]))
        displacement = np.sqrt(np.nanmean((moved - ca) ** 2))
        assert displacement == pytest.approx(float(row["displacement"]), abs=1e-4), "not the pair that was answered"
        assert tm_score(moved, ca, len(ca)).score == pytest.approx(float(row["tm_score"]), abs=1e-4), row
        assert gdt_ts(moved, ca, len(ca)) == pytest.approx(float(row["gdt_ts"]), abs=1e-4), row
        assert rmsd_ca(moved, ca) == pytest.approx(float(row["rmsd"]), abs=1e-3), row


def test_answers_span_all_qualities(answers: list[dict[str, str]]) -> None:
    magnitudes = [float(row["magnitude"]) for row in answers]
    scores = [float(row["tm_score"]) for row in answers]
    assert (min(magnitudes), max(magnitudes)) == (0.1, 20.0)
    assert min(scores) < 0.12
    assert max(scores) > 0.999


def test_a_structure_scores_one_against_itself(chain: Reference) -> None:
    assert tm_score(chain.ca, chain.ca).score == pytest.approx(1.0, abs=1e-9)
    assert gdt_ts(chain.ca, chain.ca) == 1.0
    assert rmsd_ca(chain.ca, chain.ca) == pytest.approx(0.0, abs=1e-6)


def test_a_mirror_image_does_not_score_one(chain: Reference) -> None:
    mirrored = chain.ca * np.array([-1.0, 1.0, 1.0])
    assert tm_score(mirrored, chain.ca).score < 0.5
    assert gdt_ts(mirrored, chain.ca) < 0.5
    assert rmsd_ca(mirrored, chain.ca) > 5.0


@settings(deadline=None, max_examples=15)
@given(
    axis=st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    shift=st.tuples(*[st.floats(-200.0, 200.0)] * 3),
    noise=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_scores_ignore_rigid_motion(
    chain: Reference, axis: tuple[float, ...], shift: tuple[float, ...], noise: float
) -> None:
    prediction = chain.ca + noise * np.random.default_rng(7).normal(size=chain.ca.shape)
    moved = Rotation.from_rotvec(axis).apply(prediction) + np.array(shift)
    assert tm_score(moved, chain.ca).score == pytest.approx(tm_score(prediction, chain.ca).score, abs=1e-6)
    assert gdt_ts(moved, chain.ca) == pytest.approx(gdt_ts(prediction, chain.ca), abs=1e-2)
    assert rmsd_ca(moved, chain.ca) == pytest.approx(rmsd_ca(prediction, chain.ca), abs=1e-6)


def test_score_is_the_same_either_way_round_for_equal_lengths(chain: Reference) -> None:
    prediction = chain.ca + np.random.default_rng(1).normal(size=chain.ca.shape)
    assert tm_score(prediction, chain.ca).score == pytest.approx(tm_score(chain.ca, prediction).score, abs=1e-6)


def test_superposition_returned_gives_the_score(chain: Reference) -> None:
    prediction = chain.ca[:, [1, 2, 0]] + np.random.default_rng(2).normal(size=chain.ca.shape)
    result = tm_score(prediction, chain.ca)
    squared = ((prediction @ result.rotation.T + result.translation - chain.ca) ** 2).sum(axis=1)
    direct = (1 / (1 + squared / tm_distance_scale(len(chain)) ** 2)).mean()
    assert direct == pytest.approx(result.score, abs=1e-9)
    assert np.linalg.det(result.rotation) == pytest.approx(1.0)


def test_missing_residues_count_against_the_score(chain: Reference) -> None:
    half = chain.ca.copy()
    half[len(half) // 2 :] = np.nan
    assert tm_score(half, chain.ca).score == pytest.approx(0.5, abs=1e-6)
    assert gdt_ts(half, chain.ca, 2 * len(chain)) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 16, 22])
def test_short_chains_are_scored(chain: Reference, count: int) -> None:
    ca = chain.ca[:count]
    assert tm_score(ca + 3.0, ca).score == pytest.approx(1.0, abs=1e-6)
    far = tm_score(100.0 * np.random.default_rng(0).normal(size=ca.shape), ca).score
    assert 0.0 < far <= 1.0


def test_points_on_a_line_and_points_at_one_place_are_scored() -> None:
    line = np.arange(30.0)[:, None] * np.array([3.8, 0.0, 0.0])
    assert tm_score(line[:, [1, 0, 2]], line).score == pytest.approx(1.0, abs=1e-6)
    assert 0.0 < tm_score(np.zeros_like(line), line).score < 1.0


def test_distance_scale_follows_the_formula_and_has_a_floor() -> None:
    assert tm_distance_scale(10) == tm_distance_scale(15) == tm_distance_scale(21) == 0.5
    assert tm_distance_scale(126) == pytest.approx(1.24 * 111 ** (1 / 3) - 1.8)


def test_unusable_coordinates_are_refused(chain: Reference) -> None:
    with pytest.raises(ProtquantError, match="cannot be compared"):
        tm_score(chain.ca[1:], chain.ca)
    with pytest.raises(ProtquantError, match="no residue has coordinates"):
        tm_score(np.full((3, 3), np.nan), chain.ca[:3])
    with pytest.raises(ProtquantError, match="reference_length is 5"):
        tm_score(chain.ca, chain.ca, 5)


def test_long_chain_is_searched_in_parts_with_the_same_result(
    chain: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = chain.ca + 2 * np.random.default_rng(3).normal(size=chain.ca.shape)
    whole = tm_score(prediction, chain.ca).score
    monkeypatch.setattr("protquant.scores.superposition_search.MAX_CELLS", 40 * len(chain))
    assert tm_score(prediction, chain.ca).score == pytest.approx(whole, abs=1e-4)
