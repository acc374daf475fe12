from pathlib import Path

import numpy as np

from protquant.models import ESMFold
from protquant.pipelines import contact_figure, fold, prediction_figure
from protquant.pipelines.plots import save_figure

PNG = b"\x89PNG\r\n"


def test_a_prediction_is_drawn_with_its_aligned_error_and_chain_ends(esmfold: ESMFold, tmp_path: Path):
    figure = prediction_figure(fold(esmfold, "MKTAYIAK:GAVLIDE"))
    line, matrix = figure.axes[:2]
    assert line.lines[0].get_xdata().tolist() == list(range(1, 16))
    assert line.lines[1].get_xdata() == [8.5, 8.5]
    assert matrix.images[0].get_array().shape == (15, 15)
    assert save_figure(figure, tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_prediction_of_one_residue_without_aligned_error_is_drawn(esmfold: ESMFold):
    prediction = fold(esmfold, "M")
    prediction.pae = None
    assert prediction_figure(prediction).axes[0].get_xlim() == (1, 2)


def test_true_contacts_lie_below_the_diagonal_and_predicted_ones_above(tmp_path: Path):
    probabilities, distances = np.full((6, 6), 0.9), np.full((6, 6), 20.0)
    distances[4, 1] = distances[1, 4] = 5.0
    figure = contact_figure([("float", probabilities), ("w8", probabilities)], distances)
    true, predicted = (np.asarray(image.get_array().filled(np.nan)) for image in figure.axes[0].images)
    assert np.argwhere(true).tolist() == [[4, 1]]
    assert np.isnan(predicted[np.tril_indices(6)]).all()
    assert (predicted[np.triu_indices(6, 1)] == 0.9).all()
    assert figure.axes[1].get_title() == "w8"
