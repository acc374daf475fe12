"""Chains to score, and the perturbations that the stored TMscore answers belong to."""

import csv
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from protquant.structures import Reference, load_references

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def references() -> dict[str, Reference]:
    """The 50 shipped chains by name."""
    return {reference.name: reference for reference in load_references()}


@pytest.fixture(scope="session")
def chain(references: dict[str, Reference]) -> Reference:
    """A chain of 126 residues."""
    return references["1ahsA"]


@pytest.fixture(scope="session")
def perturb() -> Callable[..., NDArray[np.float64]]:
    """`perturb` of perturbations.py, which is loaded by path so that no import mode of pytest matters."""
    spec = spec_from_file_location("perturbations", HERE / "perturbations.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., NDArray[np.float64]] = module.perturb
    return function


@pytest.fixture(scope="session")
def answers() -> list[dict[str, str]]:
    """What TMscore printed about 200 pairs."""
    with (HERE / "data" / "tmscore_answers.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
