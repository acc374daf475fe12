"""PAE files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protquant.errors import ProtquantError
from protquant.proteins import Prediction, write_pae


def test_it_has_the_form_of_the_alphafold_database(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    prediction = predict("MKW")
    prediction.pae = np.array([[0.2, 3.6, 31.0], [1.4, 0.2, 8.0], [31.75, 12.49, 0.25]], dtype=np.float32)
    assert json.loads(write_pae(prediction, tmp_path / "x_pae.json").read_text()) == [
        {
            "predicted_aligned_error": [[0, 4, 31], [1, 0, 8], [32, 12, 0]],
            "max_predicted_aligned_error": 31.75,
        }
    ]


def test_a_missing_or_overflown_pae_is_told(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    prediction = predict("MK")
    prediction.pae = np.full((2, 2), np.inf)
    with pytest.raises(ProtquantError, match="not finite"):
        write_pae(prediction, tmp_path / "x_pae.json")
    prediction.pae = None
    with pytest.raises(ProtquantError, match="no predicted aligned error"):
        write_pae(prediction, tmp_path / "x_pae.json")
    assert list(tmp_path.iterdir()) == []
