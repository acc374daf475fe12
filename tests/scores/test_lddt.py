"""lDDT-CA is biotite's and that of its definition."""

import numpy as np
import pytest
from biotite.structure import lddt
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.scores import lddt_ca, lddt_ca_per_residue
from protquant.structures import Reference


def by_definition(prediction: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kept fraction and number of pairs of each residue, shape (n, 2); a plain loop over pairs."""
    kept = np.zeros((len(reference), 2))
    for i in range(len(reference)):
        for j in range(len(reference)):
            distance = np.linalg.norm(reference[i] - reference[j])
            if i == j or not distance <= 15.0:
                continue
            change = abs(np.linalg.norm(prediction[i] - prediction[j]) - distance)
            kept[i] += (np.mean([change < limit for limit in (0.5, 1.0, 2.0, 4.0)]), 1)
    return kept


@pytest.mark.parametrize("noise", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("name", ["1i8nA", "3a4rA", "2xdgA"])
def test_lddt_equals_biotite_and_the_definition(references: dict[str, Reference], name: str, noise: float) -> None:
    chain = references[name]
    prediction = chain.ca + noise * np.random.default_rng(5).normal(size=chain.ca.shape)
    ca_atoms = chain.atoms[chain.atoms.atom_name == "CA"]
    assert lddt_ca(prediction, chain.ca) == pytest.approx(float(lddt(ca_atoms, prediction)), abs=1e-6)
    kept = by_definition(prediction, chain.ca)
    assert lddt_ca(prediction, chain.ca) == pytest.approx(kept[:, 0].sum() / kept[:, 1].sum(), abs=1e-4)
    assert np.allclose(lddt_ca_per_residue(prediction, chain.ca), kept[:, 0] / kept[:, 1], atol=5e-3)


def test_mirror_image_keeps_all_distances(chain: Reference) -> None:
    assert lddt_ca(-chain.ca, chain.ca) == 1.0


def test_residue_missing_in_the_prediction_loses_its_distances(chain: Reference) -> None:
    prediction = chain.ca.copy()
    prediction[40] = np.nan
    assert lddt_ca_per_residue(prediction, chain.ca)[40] == 0.0
    assert 0.9 < lddt_ca(prediction, chain.ca) < 1.0


def test_residue_missing_in_the_reference_is_left_out(chain: Reference) -> None:
    reference = chain.ca.copy()
    reference[40] = np.nan
    prediction = chain.ca + np.random.default_rng(5).normal(size=chain.ca.shape)
    without = np.arange(len(chain)) != 40
    assert lddt_ca(prediction, reference) == lddt_ca(prediction[without], reference[without])
    per_residue = lddt_ca_per_residue(prediction, reference)
    assert np.isnan(per_residue[40])
    assert np.isfinite(per_residue[without]).all()


def test_lone_residue_has_no_lddt(chain: Reference) -> None:
    assert np.isnan(lddt_ca(chain.ca[:1], chain.ca[:1]))


def test_unusable_coordinates_are_refused(chain: Reference) -> None:
    with pytest.raises(ProtquantError, match="cannot be compared"):
        lddt_ca(chain.ca[1:], chain.ca)
    with pytest.raises(ProtquantError, match="nothing to compare"):
        lddt_ca(chain.ca[:2], np.full((2, 3), np.nan))
