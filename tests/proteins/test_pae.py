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
            "token_chain_ids": ["A", "A", "A"],
            "token_res_ids": [1, 2, 3],
            "ptm": 0.87,
        }
    ]


def test_it_tells_where_the_chains_of_a_complex_are(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    pairs = np.array([[0.91, 0.5], [0.5, 0.83]])
    prediction = predict("MKX:GA", iptm=0.5, chain_pair_iptm=pairs)
    ((document,),) = [json.loads(write_pae(prediction, tmp_path / "x_pae.json").read_text())]
    assert document["token_chain_ids"] == ["A", "A", "A", "B", "B"]
    assert document["token_res_ids"] == [1, 2, 3, 1, 2]
    assert document["iptm"] == 0.5
    assert document["chain_pair_iptm"] == pairs.tolist()
    atoms = prediction.atoms  # the same names and numbers, where there are atoms
    places = set(zip(document["token_chain_ids"], document["token_res_ids"], strict=True))
    assert places - set(zip(atoms.chain_id, atoms.res_id, strict=True)) == {("A", 3)}


def test_a_missing_or_overflown_pae_is_told(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    prediction = predict("MK")
    prediction.pae = np.full((2, 2), np.inf)
    with pytest.raises(ProtquantError, match="not finite"):
        write_pae(prediction, tmp_path / "x_pae.json")
    prediction.pae = None
    with pytest.raises(ProtquantError, match="no predicted aligned error"):
        write_pae(prediction, tmp_path / "x_pae.json")
    assert list(tmp_path.iterdir()) == []
