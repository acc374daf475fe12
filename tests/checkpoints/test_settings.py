"""Plain attributes go through JSON and come back as what their class annotates, or are refused."""

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from protquant.checkpoints.settings import read_settings, settings_of
from protquant.quant import PiecewiseLinear, Uniform


class Thing(nn.Module):
    count: int
    share: float
    name: str | None
    mode: Literal["fine", "coarse"]
    sizes: tuple[int, ...]
    pair: tuple[str, bool]
    form: Uniform | None

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        vars(self).update(settings)


VALUES = st.fixed_dictionaries(
    {
        "count": st.integers(),
        "share": st.floats(allow_nan=False),
        "name": st.none() | st.text(),
        "mode": st.sampled_from(["fine", "coarse"]),
        "sizes": st.lists(st.integers()).map(tuple),
        "pair": st.tuples(st.text(), st.booleans()),
        "form": st.none() | st.integers(2, 16).map(Uniform),
    }
)


@given(VALUES)
def test_settings_come_back_through_json(values: dict[str, Any]) -> None:
    assert read_settings(Thing, json.loads(json.dumps(settings_of(Thing(**values)), allow_nan=False))) == values


def test_what_is_derived_is_left_out() -> None:
    thing = Thing(count=1)
    thing._cache = object()
    assert settings_of(thing) == {"count": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("count", 1.5), ("count", True), ("count", "1"), ("share", "much"), ("name", 3), ("mode", "rough")),
        *(("sizes", [1, "2"]), ("sizes", 1), ("pair", ["a"]), ("form", PiecewiseLinear(4).to_config())),
        *(("training", False), ("forward", None), ("_modules", {}), ("other", 1)),
    ],
)
def test_values_of_another_type_and_unknown_names_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        read_settings(Thing, {name: value})
