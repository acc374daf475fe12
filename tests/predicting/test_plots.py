from pathlib import Path

import numpy as np

from protquant.models import ESMFold
from protquant.predicting import contact_figure, fold, prediction_figure
from protquant.predicting.plots import save_figure

PNG = b"\x89PNG\r\n"


def test_a_prediction_is_drawn_with_its_aligned_error_and_chain_ends(esmfold: ESMFold, tmp_path: Path):
    figure = prediction_figure(fold(esmfold, "MKTAYIAK:GAVLIDE"))
    line, matrix = figure.axes[:2]
    assert line.lines[0].get_xdata().tolist() == list(range(1, 16))
    assert line.lines[1].get_xdata() == [8.5, 8.5]
    assert matrix.images[0].get_array().shape == (15, 15)
    # Both axes of the matrix number residues from 1, as the line does, and the border is where it is there.
    assert matrix.images[0].get_extent() == [0.5, 15.5, 15.5, 0.5]
    assert [list(border.get_xdata()) for border in matrix.lines[:1]] == [[8.5, 8.5]]
    assert [list(border.get_ydata()) for border in matrix.lines[1:]] == [[8.5, 8.5]]
    for axis, names in ((line, line.child_axes), (matrix, matrix.child_axes)):
        for beside in names:
            ticks = beside.get_xticks() if beside.get_xticklabels() else beside.get_yticks()
            labels = beside.get_xticklabels() or beside.get_yticklabels()
            assert [(float(tick), label.get_text()) for tick, label in zip(ticks, labels, strict=True)] == [
                (4.5, "A"),
                (12.0, "B"),
            ], axis
    assert len(line.child_axes) == 1
    assert len(matrix.child_axes) == 2
    assert ", ipTM 0." in line.get_title()
    assert save_figure(figure, tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_prediction_of_one_residue_without_aligned_error_is_drawn(esmfold: ESMFold):
    prediction = fold(esmfold, "M")
    prediction.pae = None
    line = prediction_figure(prediction).axes[0]
    assert line.get_xlim() == (1, 2)
    assert line.child_axes == []  # a single chain needs no name
    assert "ipTM" not in line.get_title()


def test_true_contacts_lie_below_the_diagonal_and_predicted_ones_above(tmp_path: Path):
    probabilities, distances = np.full((6, 6), 0.9), np.full((6, 6), 20.0)
    distances[4, 1] = distances[1, 4] = 5.0
    figure = contact_figure([("float", probabilities), ("w8", probabilities)], distances)
    true, predicted = (np.asarray(image.get_array().filled(np.nan)) for image in figure.axes[0].images)
    assert np.argwhere(true).tolist() == [[4, 1]]
    assert np.isnan(predicted[np.tril_indices(6)]).all()
    assert (predicted[np.triu_indices(6, 1)] == 0.9).all()
    assert figure.axes[1].get_title() == "w8"
