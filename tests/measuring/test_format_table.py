from pathlib import Path

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.measuring.format_table import SAMPLES, draw_levels, fit_format, format_table
from protquant.quant import FORMATS, DInt, TokenOutlier, Uniform, format_from_config


@pytest.fixture(scope="module")
def table() -> list[dict]:
    return format_table()


def row(table: list[dict], label: str) -> dict:
    return next(row for row in table if row["label"] == label)


def test_every_format_that_recipes_know_is_listed_with_settings_that_make_it(table):
    assert {row["format"] for row in table} == set(FORMATS)
    for each in table:
        form = format_from_config(each["settings"])
        assert form is not None
        assert (form.label, form.code_bits) == (each["label"], each["bits"])
    assert len({each["label"] for each in table}) == len(table)


def test_bits_count_scales_zero_points_and_outliers(table):
    assert row(table, "uniform 4 symmetric per channel")["weight_bits"] == pytest.approx(4 + 32 / 1024)
    assert row(table, "dint 4 per group 32")["weight_bits"] == pytest.approx(4 + (32 + 4) / 32)
    assert row(table, "uniform 8 symmetric per token")["activation_bits"] == pytest.approx(8 + 32 / 128)
    assert row(table, "token 8 + 4 outliers")["activation_bits"] == 8 * 138 / 128
    assert row(table, "float8 e4m3fn per channel")["activation_bits"] is None
    assert row(table, "token 4 + 0 outliers")["weight_bits"] is None


def test_outliers_pay_where_the_tail_is_heavy(table):
    with_outliers, without = row(table, "token 4 + 4 outliers"), row(table, "token 4 + 0 outliers")
    assert with_outliers["snr_heavy_tailed_db"] > without["snr_heavy_tailed_db"] + 6


def test_a_format_is_fitted_to_what_it_is_for():
    x = SAMPLES["gaussian"]()
    assert fit_format(TokenOutlier(), x).weight is None
    assert fit_format(DInt(), x).activation is None
    both = fit_format(Uniform(granularity="tensor"), x)
    assert both.weight is not None and both.activation is not None


@pytest.mark.slow
def test_the_picture_is_a_png_of_some_size(tmp_path: Path):
    path = draw_levels(tmp_path / "new" / "levels.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 50_000


def test_a_picture_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(ProtquantError, match=r"\.png"):
        draw_levels(tmp_path / "levels.svg")


def test_samples_are_the_same_every_time():
    assert torch.equal(SAMPLES["heavy_tailed"](), SAMPLES["heavy_tailed"]())
    assert SAMPLES["heavy_tailed"]().min() > -1
