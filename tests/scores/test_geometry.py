"""Structures that could be no protein are told from those of crystals, whatever their confidence says."""

import numpy as np
import pytest
from biotite.structure import AtomArray

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.predicting import fold
from protquant.scores import measure_geometry
from protquant.scores.geometry import MOST_CA_OUTLIERS, MOST_CLASHES
from protquant.structures import Reference

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def trace(*x: float, residues: str = "ALA", numbers: list[int] | None = None, chains: str = "") -> AtomArray:
    """C-alphas on a line."""
    atoms = AtomArray(len(x))
    atoms.coord[:] = 0
    atoms.coord[:, 0] = x
    atoms.atom_name[:], atoms.element[:] = "CA", "C"
    atoms.res_name = np.array(residues.split() if " " in residues else [residues] * len(x))
    atoms.res_id = np.arange(len(x)) if numbers is None else np.array(numbers)
    atoms.chain_id = np.array(list(chains or "A" * len(x)))
    return atoms


def pair(names: tuple[str, str], apart: float, numbers: tuple[int, int], chains: str = "AA") -> AtomArray:
    atoms = trace(0, apart, numbers=list(numbers), chains=chains)
    atoms.atom_name[:] = names
    atoms.element[:] = [name[0] for name in names]
    return atoms


def test_no_chain_of_a_crystal_is_warned_of(references: dict[str, Reference]):
    measured = {name: measure_geometry(reference.atoms) for name, reference in references.items()}
    assert len(measured) == 50
    assert [name for name, geometry in measured.items() if geometry.warnings()] == []
    # The thresholds leave room: the worst of them is far below.
    assert max(geometry.ca_outliers for geometry in measured.values()) < MOST_CA_OUTLIERS / 3
    assert max(geometry.clashes for geometry in measured.values()) < MOST_CLASHES / 3
    assert sum(geometry.cis_prolines for geometry in measured.values()) == 11


def test_what_the_demo_makes_of_ubiquitin_is_warned_of_though_its_plddt_is_high():
    demo = load("demo")
    assert isinstance(demo, ESMFold)
    prediction = fold(demo, UBIQUITIN, even_so=True)
    assert prediction.mean_plddt > 90
    assert prediction.geometry["ca_outliers"] > 0.7
    assert prediction.geometry["clashes"] > 500
    assert any("distorted backbone" in warning for warning in prediction.warnings)
    assert any("clashing atoms" in warning for warning in prediction.warnings)


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_a_crystal_with_noise_is_warned_of(references: dict[str, Reference], noise: float):
    atoms = references["3a4rA"].atoms.copy()
    atoms.coord += noise * np.random.default_rng(0).normal(size=atoms.coord.shape).astype(np.float32)
    assert len(measure_geometry(atoms).warnings()) == 2


def test_neighbors_are_counted_that_are_not_as_far_apart_as_a_peptide_makes_them():
    assert measure_geometry(trace(0, 3.8, 7.6, 11.4)).ca_outliers == 0
    assert measure_geometry(trace(0, 3.8, 7.3, 11.4)).ca_outliers == pytest.approx(2 / 3)


def test_cis_prolines_are_no_outliers_and_other_cis_peptides_are():
    before_proline = measure_geometry(trace(0, 3.8, 6.75, residues="GLY ALA PRO"))
    assert (before_proline.ca_outliers, before_proline.cis_prolines) == (0, 1)
    other = measure_geometry(trace(0, 3.8, 6.75, residues="GLY PRO ALA"))
    assert (other.ca_outliers, other.cis_prolines) == (0.5, 0)


def test_residues_apart_in_number_or_chain_are_no_neighbors():
    assert np.isnan(measure_geometry(trace(0, 50, numbers=[1, 3])).ca_outliers)
    assert np.isnan(measure_geometry(trace(0, 50, numbers=[1, 2], chains="AB")).ca_outliers)
    assert measure_geometry(trace(0, 50, numbers=[1, 3])).warnings() == []


@pytest.mark.parametrize(
    ("names", "apart", "numbers", "chains", "clashing"),
    [
        (("CA", "CB"), 1.85, (1, 9), "AA", True),
        (("CA", "CB"), 1.95, (1, 9), "AA", False),  # 2 x 1.7 - 1.5 = 1.9
        (("O", "N"), 1.55, (1, 9), "AB", True),
        (("O", "N"), 1.60, (1, 9), "AB", False),  # 1.52 + 1.55 - 1.5 = 1.57
        (("CA", "CB"), 1.0, (1, 1), "AA", False),  # of one residue
        (("C", "N"), 1.33, (1, 2), "AA", False),  # a peptide bond
        (("C", "N"), 1.33, (1, 2), "AB", True),
        (("SG", "SG"), 2.03, (1, 9), "AA", False),  # a disulfide
        (("SD", "SG"), 2.03, (1, 9), "AA", True),
    ],
)
def test_atoms_clash_that_are_nearer_than_their_radii_allow_and_not_bonded(names, apart, numbers, chains, clashing):
    assert measure_geometry(pair(names, apart, numbers, chains)).clashes == (500 if clashing else 0)


def test_coordinates_that_are_not_finite_are_refused():
    with pytest.raises(ProtquantError, match="1 of 2 atoms have coordinates that are not finite"):
        measure_geometry(trace(0, np.nan))
