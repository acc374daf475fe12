"""Contact precision and drift."""

import numpy as np
import pytest
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.scores import cb_distances, contact_precision, probability_drift
from protquant.structures import Reference

BANDS = {"long": (24, 10_000), "medium": (12, 23), "short": (6, 11), "local": (3, 5)}


def by_counting(scores: NDArray[np.float64], distances: NDArray[np.float64], band: str, top: int) -> float:
    least, most = BANDS[band]
    pairs = [
        (-scores[i, j], i, j)
        for i in range(len(scores))
        for j in range(i + 1, len(scores))
        if least <= j - i <= most and np.isfinite(distances[i, j])
    ]
    chosen = sorted(pairs)[:top]
    return float(np.mean([distances[i, j] < 8.0 for _, i, j in chosen]))


@pytest.fixture
def scores(chain: Reference) -> NDArray[np.float64]:
    """Probabilities that know the contacts, with noise and many ties."""
    noise = np.random.default_rng(0).uniform(0, 12, (len(chain), len(chain)))
    raw = np.round(1 / (1 + cb_distances(chain.cb) + noise + noise.T), 2)
    return np.asarray(raw)


def test_precision_equals_counting_pair_by_pair(chain: Reference, scores: NDArray[np.float64]) -> None:
    cb = chain.cb.copy()
    cb[20:26] = np.nan
    distances = cb_distances(cb)
    precision = contact_precision(scores, distances)
    assert len(precision) == 12
    length = len(chain) - 6
    for band in BANDS:
        for depth, top in (("P@L", length), ("P@L/2", length // 2), ("P@L/5", length // 5)):
            assert precision[f"{band} {depth}"] == by_counting(scores, distances, band, top)


def test_knowing_the_distances_gives_full_precision(chain: Reference) -> None:
    distances = cb_distances(chain.cb)
    assert contact_precision(-distances, distances)["long P@L"] == 1.0
    assert contact_precision(distances, distances)["long P@L"] == 0.0


def test_distance_is_between_c_betas_and_eight_angstrom_is_no_contact() -> None:
    cb = np.zeros((4, 3))
    cb[3, 0] = 8.0
    assert contact_precision(np.ones((4, 4)), cb_distances(cb))["local P@L"] == 0.0
    cb[3, 0] = 7.999
    assert contact_precision(np.ones((4, 4)), cb_distances(cb))["local P@L"] == 1.0


def test_band_without_pairs_is_nan(chain: Reference) -> None:
    distances = cb_distances(chain.cb[:10])
    precision = contact_precision(np.zeros((10, 10)), distances)
    assert np.isnan(precision["long P@L"])
    assert np.isnan(precision["medium P@L/5"])
    assert np.isfinite(precision["short P@L"])
    nothing = contact_precision(np.zeros((10, 10)), np.full((10, 10), np.nan))
    assert all(np.isnan(value) for value in nothing.values())


def test_drift_is_the_mean_change_of_pairs_six_apart() -> None:
    a = np.zeros((10, 10))
    b = a.copy()
    b[0, 6] = b[6, 0] = 0.5
    b[0, 5] = b[5, 0] = 1.0
    assert probability_drift(a, a) == 0.0
    assert probability_drift(a, b) == pytest.approx(0.5 / 10)
    assert probability_drift(a, b, min_separation=5) == pytest.approx(1.5 / 15)
    assert np.isnan(probability_drift(a[:6, :6], b[:6, :6]))


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ProtquantError, match="same sequence"):
        contact_precision(np.zeros((4, 4)), np.zeros((5, 5)))
    with pytest.raises(ProtquantError, match=r"must be \(L, L\)"):
        contact_precision(np.zeros((4, 4)), np.zeros((4, 3)))
    with pytest.raises(ProtquantError, match="NaN"):
        contact_precision(np.full((4, 4), np.nan), np.zeros((4, 4)))
    with pytest.raises(ProtquantError, match="same sequence"):
        probability_drift(np.zeros((4, 4)), np.zeros((5, 5)))
