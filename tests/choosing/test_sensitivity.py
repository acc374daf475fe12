"""The table of sensitivities: what it says, and that it is gone on with and never mixed up."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from protquant.choosing.sensitivity import Sensitivity, sensitivity, weight_formats
from protquant.choosing.sensitivity_plots import sensitivity_figure
from protquant.errors import ProtquantError
from protquant.measuring.drift import drift_measure
from protquant.models import ESMFold
from protquant.quant import Recipe, model_hash, quantize

SEQUENCES = ["GIVEQCCTSICS"]


@pytest.fixture(scope="module")
def language(esmfold: ESMFold, calibration_file: Path) -> Sensitivity:
    widths = {"weight_bits": (8, 3), "activation_bits": (8, 3)}
    return sensitivity(esmfold.lm, by="module", **widths, sequences=SEQUENCES, calibration=calibration_file)


@pytest.fixture(scope="module")
def folding(esmfold: ESMFold, calibration_file: Path) -> Sensitivity:
    widths = {"weight_bits": (3,), "activation_bits": (4,), "num_recycles": 0}
    return sensitivity(esmfold, by="block", **widths, sequences=SEQUENCES, calibration=calibration_file)


def test_fewer_bits_drift_further(language: Sensitivity):
    frame = language.to_frame()
    assert set(language.drifts) == {"contact_drift", "logit_kl"}
    for _, rows in frame.groupby("group"):
        wide, narrow = rows.sort_values("bits", ascending=False).to_dict("records")
        assert wide["bits"] > narrow["bits"]
        assert all(wide[name] <= narrow[name] for name in language.drifts)
    assert (frame.logit_kl > 0).all()


def test_the_drift_is_that_of_a_recipe_for_this_part_alone(esmfold: ESMFold, language: Sensitivity):
    row = next(row for row in language.rows if row["group"] == "layers.1.ffn weights" and row["bits"] < 5)
    form = weight_formats((3,))[0].to_config()
    twin, _ = quantize(esmfold.lm, Recipe(sites={f"layers.1.ffn.{name}_proj.weight": form for name in ("up", "down")}))
    measure = drift_measure(esmfold.lm)
    (sequence,) = SEQUENCES
    drift = measure.compare(measure.run(twin, sequence), measure.run(esmfold.lm, sequence))
    assert row["logit_kl"] == pytest.approx(drift["logit_kl"], rel=1e-6)
    assert row["contact_drift"] == pytest.approx(drift["contact_drift"], rel=1e-6)


def test_a_folding_model_is_measured_by_its_structure(folding: Sensitivity):
    assert folding.drifts == ("lddt_drift", "distogram_kl", "tm_drift")
    frame = folding.to_frame()
    assert {"lm.layers.0", "trunk.blocks.1", "trunk"} <= set(frame.block)
    assert ((frame.tm_drift >= -1e-9) & (frame.tm_drift <= 1)).all()
    assert (frame.distogram_kl > 0).any()


def test_the_model_is_the_same_to_the_bit_afterwards(esmfold: ESMFold):
    before = model_hash(esmfold)
    sensitivity(esmfold, by="block", weight_bits=(2,), activation_bits=(), sequences=SEQUENCES, num_recycles=0)
    assert model_hash(esmfold) == before


def test_a_table_is_gone_on_with(esmfold: ESMFold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = {"by": "block", "activation_bits": (), "sequences": SEQUENCES, "output": tmp_path / "table.csv"}
    first = sensitivity(esmfold.lm, weight_bits=(4,), **settings)
    both = sensitivity(esmfold.lm, weight_bits=(4, 3), **settings)
    assert len(both.rows) == 2 * len(first.rows)
    # A group that is missing is measured, and no other.
    frame = pd.read_csv(tmp_path / "table.csv")
    frame[frame.group != frame.group[0]].to_csv(tmp_path / "table.csv", index=False)
    again = sensitivity(esmfold.lm, weight_bits=(4, 3), **settings)
    pd.testing.assert_frame_equal(again.to_frame(), both.to_frame())
    monkeypatch.setattr("protquant.quant.sensitivity._Fitter", None)
    done = sensitivity(esmfold.lm, weight_bits=(3,), **settings)
    assert len(done.rows) == 2 * len(first.rows)


def test_a_table_of_something_else_is_refused(esmfold: ESMFold, tmp_path: Path):
    table = tmp_path / "table.csv"
    settings = {"by": "block", "weight_bits": (4,), "activation_bits": (), "output": table}
    sensitivity(esmfold.lm, sequences=SEQUENCES, **settings)
    with pytest.raises(ProtquantError, match=r"table.csv: this table was made of another model, other sequences"):
        sensitivity(esmfold.lm, sequences=["MKTAYIAK"], **settings)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ProtquantError, match=r"table.csv: cannot be resumed, as the column 'key' is missing"):
        sensitivity(esmfold.lm, sequences=SEQUENCES, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "layer"}, "grouped by site, module, kind, block"),
        ({"granularity": "row"}, "granularity 'row' is none of channel, group, both"),
        ({"base": "fp32"}, "fp32 leaves everything in float"),
        ({"base": "bf16", "weight_bits": ()}, "has no bits to be changed"),
        ({"weight_bits": (1,)}, "bits 1 is not an integer from 2"),
        ({"sequences": ["MKT:AYI"]}, "single chains"),
        ({"num_recycles": -1}, "recycles is -1"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(esmfold: ESMFold, settings, message: str):
    with pytest.raises(ProtquantError, match=message):
        sensitivity(esmfold.lm, **({"by": "block", "sequences": SEQUENCES} | settings))


def test_the_heat_map_shows_every_group(language: Sensitivity, folding: Sensitivity):
    for found in (language, folding):
        figure = sensitivity_figure(found, found.drifts[1])
        cells = sum(np.isfinite(axis.images[0].get_array()).sum() for axis in figure.axes if axis.images)
        assert cells >= found.to_frame().group.nunique()
        FigureCanvasAgg(figure).draw()
    with pytest.raises(ProtquantError, match="no drift 'rmsd'"):
        sensitivity_figure(language, "rmsd")
