"""Fingerprints of settings."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protquant.files import fingerprint, json_value

SETTINGS = st.dictionaries(st.text(max_size=5), st.integers() | st.floats() | st.text(max_size=5) | st.none())


def test_it_is_the_same_in_every_process_and_version() -> None:
    # printf '{"a":"x","b":[1,2.5,null]}' | sha256sum
    expected = "ce74053d7a9997b7a9ffa28fba2f736e47c7ebb226ab093038bc0fba3a1554ee"
    assert fingerprint({"b": [1, 2.5, None], "a": "x"}) == expected


@given(SETTINGS)
def test_the_order_of_keys_does_not_matter(settings: dict[str, object]) -> None:
    assert fingerprint(settings) == fingerprint(dict(reversed(settings.items())))


@given(SETTINGS, st.text(max_size=5), st.text())
def test_any_change_shows(settings: dict[str, object], key: str, value: str) -> None:
    changed = settings | {key: value}
    assert (fingerprint(changed) == fingerprint(settings)) == (settings.get(key) == value)


def test_numpy_tuples_paths_and_dataclasses_are_what_they_hold() -> None:
    @dataclass
    class Recipe:
        bits: int
        names: tuple[str, ...]

    value = {"recipe": Recipe(8, ("a", "b")), "scale": np.float64(0.5), "path": Path("x"), "flag": np.bool_(True)}
    plain = {"recipe": {"bits": 8, "names": ["a", "b"]}, "scale": 0.5, "path": "x", "flag": True}
    assert json_value(value) == plain
    assert fingerprint(value) == fingerprint(plain)


@pytest.mark.parametrize("value", [{"a": {1, 2}}, {1: "a"}, {"a": object()}, {"a": np.zeros(2)}])
def test_what_has_no_stable_text_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        fingerprint(value)
