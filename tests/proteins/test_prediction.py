"""The result of folding one target."""

import math
import re
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pytest

from protquant.errors import ProtquantError
from protquant.proteins import Prediction, Provenance


def test_the_row_tells_lengths_and_confidence(predict: Callable[..., Prediction]) -> None:
    prediction = predict("MKW:GA", header="pair two chains")
    row = prediction.row()
    assert row["name"] == "pair"
    assert row["header"] == "pair two chains"
    assert row["length"] == 5
    assert row["chains"] == 2
    assert row["mean_plddt"] == pytest.approx(prediction.plddt.mean())
    assert row["ptm"] == 0.87


def test_the_repr_is_one_short_line(predict: Callable[..., Prediction]) -> None:
    assert re.fullmatch(r"Prediction\('ubq': 76 residues, pLDDT \d\d\.\d, pTM 0\.870, 0 recycles\)", repr(predict()))


def test_a_complex_shows_its_interface_scores_and_a_single_chain_has_none(predict: Callable[..., Prediction]) -> None:
    pairs = np.array([[0.9, 0.25, 0.5], [0.25, 0.8, 0.75], [0.5, 0.75, 0.7]])
    several = predict("MK:GA:WY", iptm=0.625, chain_pair_iptm=pairs)
    assert several.row()["iptm"] == 0.625
    assert "3 chains, pLDDT 5" in repr(several)
    assert "pTM 0.870, ipTM 0.625, 0 recycles" in repr(several)
    shown = several._repr_html_()
    for name, value in (("iptm", 0.625), ("iptm A-B", 0.25), ("iptm A-C", 0.5), ("iptm B-C", 0.75)):
        assert f"<tr><th>{name}</th><td>{value:.3f}</td></tr>" in shown
    single = predict("MKW")
    assert math.isnan(single.row()["iptm"])
    assert single.iptm_of_pairs() == {}
    assert "ipTM" not in repr(single)
    assert "<tr><th>iptm</th><td></td></tr>" in single._repr_html_()


def test_warnings_stand_in_the_row_and_in_every_repr(predict: Callable[..., Prediction]) -> None:
    warned = predict("MKW", warnings=("the backbone is <broken>", "atoms clash"))
    assert warned.row()["warnings"] == "the backbone is <broken>; atoms clash"
    assert repr(warned).endswith("; WARNING: the backbone is <broken>; WARNING: atoms clash)")
    assert "<b>Warning:</b> the backbone is &lt;broken&gt;</p>" in warned._repr_html_()
    assert predict("MKW").row()["warnings"] == ""
    assert "arning" not in predict("MKW")._repr_html_()


def test_measures_of_geometry_are_columns_of_the_row(predict: Callable[..., Prediction]) -> None:
    assert predict("MKW", geometry={"clashes": 3}).row()["clashes"] == 3


def test_what_made_it_is_told_as_far_as_it_is_known(predict: Callable[..., Prediction]) -> None:
    made = Provenance(version="1.2", model="small", fingerprint="ab", float_fingerprint="ab", recipe="w8")
    remarks = predict("MKW", provenance=made, warnings=("look at it",), recycles=3).remarks()
    facts = ["program: protquant 1.2", "model: small", "model fingerprint: ab", "recipe: w8", "recycles: 3"]
    facts.append("B-factors: pLDDT of each atom, 0-100")
    assert remarks == ["WARNING: look at it", *facts]
    of_checkpoint = Provenance(version="1.2", fingerprint="ab", float_fingerprint="cd")
    assert of_checkpoint.facts()["float model fingerprint"] == "cd"
    assert predict("MKW").remarks()[:2] == [f"program: protquant {version('protquant')}", "recycles: 0"]


def test_a_plddt_on_the_scale_from_0_to_1_is_refused(predict: Callable[..., Prediction]) -> None:
    prediction = predict("MKW")
    with pytest.raises(ValueError, match="expected the scale from 0 to 100"):
        Prediction("x", "x", "MKW", prediction.atoms, prediction.plddt / 100)


def test_arrays_of_another_length_are_refused(predict: Callable[..., Prediction]) -> None:
    prediction = predict("MKW")
    with pytest.raises(ValueError, match="plddt has shape"):
        Prediction("x", "x", "MKW:GA", prediction.atoms, prediction.plddt)
    with pytest.raises(ValueError, match="pae has shape"):
        Prediction("x", "x", "MKW", prediction.atoms, prediction.plddt, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"chain_pair_iptm has shape \(2, 2\), expected \(1, 1\)"):
        Prediction("x", "x", "MKW", prediction.atoms, prediction.plddt, chain_pair_iptm=np.zeros((2, 2)))


def test_an_overflow_is_told_as_such(predict: Callable[..., Prediction]) -> None:
    prediction = predict("MKW")
    with pytest.raises(ProtquantError, match="not finite"):
        Prediction("x", "x", "MKW", prediction.atoms, np.array([50, np.nan, 50]))
