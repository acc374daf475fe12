"""pLDDT against real lDDT."""

import numpy as np
import pytest

from protquant.errors import ProtquantError
from protquant.scores import plddt_correlation, plddt_error

LDDT = np.array([0.9, 0.5, np.nan, 0.7])


def test_error_is_on_the_scale_of_plddt_and_leaves_missing_residues_out() -> None:
    assert plddt_error(np.array([80.0, 55.0, 3.0, 70.0]), LDDT) == pytest.approx((10 + 5 + 0) / 3)


def test_correlation_ignores_scale_and_is_nan_without_variation() -> None:
    assert plddt_correlation(50 * np.nan_to_num(LDDT) + 3, LDDT) == pytest.approx(1.0)
    assert plddt_correlation(100 - 50 * np.nan_to_num(LDDT), LDDT) == pytest.approx(-1.0)
    assert np.isnan(plddt_correlation(np.full(4, 70.0), LDDT))
    assert np.isnan(plddt_error(np.array([70.0]), np.array([np.nan])))


def test_values_out_of_range_or_of_other_length_are_refused() -> None:
    with pytest.raises(ProtquantError, match="lDDT is between 0 and 1"):
        plddt_error(np.array([80.0]), np.array([80.0]))
    with pytest.raises(ProtquantError, match="one value per residue"):
        plddt_error(np.array([80.0]), LDDT)
