"""Predictions with the atoms that real residues have, at random places."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers.models.esm.openfold_utils import residue_constants

from protquant.proteins import Prediction, atoms_from_atom37

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def atom37() -> Callable[[str], Arrays]:
    """A function that gives a sequence positions, mask and per-atom pLDDT as ESMFold does (no atoms for X)."""

    def make(sequence: str) -> Arrays:
        random = np.random.default_rng(0)
        residues = sequence.replace(":", "")
        types = [residue_constants.restype_order_with_x.get(letter, 20) for letter in residues]
        mask = np.asarray(residue_constants.restype_atom37_mask)[types]
        positions = random.normal(scale=30, size=(len(residues), 37, 3)).astype(np.float32)
        return positions, mask, random.uniform(20, 99, size=(len(residues), 37)).astype(np.float32)

    return make


@pytest.fixture
def predict(atom37: Callable[[str], Arrays]) -> Callable[..., Prediction]:
    """A function that makes a prediction for a sequence."""

    def make(sequence: str = UBIQUITIN, header: str = "ubq Ubiquitin", ptm: float = 0.87, **facts: Any) -> Prediction:
        positions, mask, plddt = atom37(sequence)
        pae = np.random.default_rng(1).uniform(0, 31.75, size=(len(mask), len(mask)))
        atoms = atoms_from_atom37(positions, mask, sequence, plddt)
        name = header.split(maxsplit=1)[0] if header.split() else "x"
        return Prediction(name, header, sequence, atoms, plddt[:, 1], pae, ptm, **facts)

    return make
