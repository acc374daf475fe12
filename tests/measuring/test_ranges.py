"""The report on range and length finds what grows, and says where it has not looked."""

import copy
from pathlib import Path

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.measuring.ranges import RangeReport, crop_to_lengths, range_by_length, range_figure
from protquant.models import ESMFold
from protquant.quant.lengths import LengthBin

BINS = (LengthBin(0, 10), LengthBin(10, 20), LengthBin(20, 40), LengthBin(40, 80))
# A sum over residues that nothing divides by their number.
SUM = "trunk.blocks.0.tri_mul_out.out_norm.input"


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranges") / "long.fasta"
    path.write_text(
        ">a\nMKTVRQERLKSIVRILERSKEPVSGAQLAEELSVSRQ\n>b\nKVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFES\n>c\nMKTAYIAKQR\n"
    )
    return path


@pytest.fixture(scope="module")
def report(esmfold: ESMFold, fasta: Path) -> RangeReport:
    return range_by_length(esmfold, fasta, lengths=(9, 18, 36), bins=BINS)


def test_crops_are_of_the_proteins_that_are_long_enough_for_all():
    assert crop_to_lengths(["ABCDEF", "GH:IJ", "KL"], [3, 4]) == ["ABC", "GHI", "ABCD", "GHIJ"]
    with pytest.raises(ProtquantError, match=r"none of the 1 sequences has 9 residues .* longest has 3"):
        crop_to_lengths(["ABC"], [9])
    with pytest.raises(ProtquantError, match="at least one residue"):
        crop_to_lengths(["ABC"], [0])


def test_every_activation_has_a_row_for_every_bin_with_sequences(report: RangeReport):
    assert report.lengths.tolist() == [9, 9, 18, 18, 36, 36]
    assert report.empty == (BINS[3],)
    assert report.cropped
    rows = report.rows()
    assert {row["lengths"] for row in rows} == {"0-10", "10-20", "20-40"}
    assert all(row["sequences"] == 2 for row in rows)
    assert all(row["maximum"] >= row["minimum"] for row in rows)
    assert len(rows) == 3 * len(report.extremes)


def test_a_sum_over_residues_is_found_to_grow_with_them(esmfold: ESMFold, fasta: Path):
    model = copy.deepcopy(esmfold)
    block = model.trunk.blocks[0].tri_mul_out
    with torch.no_grad():  # Every term of the sum the same: the range is proportional to the length.
        for layer in (block.left_proj, block.right_proj, block.left_gate, block.right_gate):
            layer.weight.zero_()
            layer.bias.fill_(1)
    report = range_by_length(model, fasta, lengths=(9, 18, 36), bins=BINS)
    growth = {row["site"]: row for row in report.growth()}
    assert growth[SUM]["growth"] == pytest.approx(1, abs=1e-4)
    assert growth[SUM]["20-40"] == pytest.approx(4 * growth[SUM]["0-10"], rel=1e-4)
    assert growth[SUM]["overshoot"] == pytest.approx(0.75, abs=1e-4)
    assert growth["trunk.blocks.0.tri_mul_out.left"]["growth"] == pytest.approx(0, abs=1e-4)
    summary = {row["kind"]: row for row in report.summary()}
    assert summary["norm_input"]["largest_growth"] >= growth[SUM]["growth"]
    assert summary["norm_input"]["overshoot"] >= growth[SUM]["overshoot"]


def test_lengths_that_no_sequence_has_are_named(esmfold: ESMFold, fasta: Path):
    whole = range_by_length(esmfold, fasta, bins=BINS[1:3])
    assert whole.lengths.tolist() == [37, 36, 10]
    assert not whole.cropped
    with pytest.raises(ProtquantError, match="no sequence has 512-1024 residues; they have 10 to 37"):
        range_by_length(esmfold, fasta, bins=(LengthBin(512, 1024),))


def test_a_picture_has_a_panel_for_every_site(report: RangeReport):
    sites = [row["site"] for row in report.growth()[:4]]
    figure = range_figure(report, sites)
    assert [axis.get_title() for axis in figure.axes if axis.axison] == sites
