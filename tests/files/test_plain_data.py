"""JSON and YAML of others: what JSON can say, within bounds."""

import json
import re
from dataclasses import dataclass

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from protquant.files.plain_data import parse_json, parse_yaml, typed

# PyYAML writes the text 1e3 without quotes, which all but YAML 1.1 takes for a number.
TEXT = st.text(st.characters(codec="utf-8")).filter(lambda text: re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", text) is None)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc 1.-", max_size=5), inner, max_size=3),
)


@given(PLAIN)
def test_what_pyyaml_writes_is_read_back(value: object):
    assert parse_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "'a' is there twice"),
        ("a: !!python/object/apply:os.system [id]", "constructor for the tag"),
        ("a: !!binary aaaa", "constructor for the tag"),
        ("a: [", "not YAML"),
        ("a: " + "[" * 100_000, "nested deeper than 64"),
        ("a: &a [*a]", "more than 200000 values"),
        ("\n".join(["a0: &a0 x", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]), "more than 200000"),
        ("a: " + "9" * 5000, "limit"),
    ],
)
def test_yaml_that_is_more_than_plain_or_than_fits_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_yaml_is_read_as_people_mean_it():
    text = "a: 1e-3\nb: 2001-01-01\nc: ${oc.env:HOME}\nd: &d [1, yes]\ne: *d"
    assert parse_yaml(text) == {"a": 1e-3, "b": "2001-01-01", "c": "${oc.env:HOME}", "d": [1, True], "e": [1, True]}


def test_json_that_is_nested_deep_is_refused():
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(b"[" * 100_000)


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    share: float = 0.5
    rest: tuple[float, ...] | None = None


def test_types_are_those_that_are_declared():
    data = {"name": "x", "inner": {"size": 3}, "share": 1, "rest": [0.1, 2.5]}
    assert typed(Outer, json.loads(json.dumps(data))) == Outer("x", Inner(3), 1.0, (0.1, 2.5))
    for change, message in (
        ({"inner": {"size": "3"}}, "inner.size: Input should be a valid integer"),
        ({"inner": {"size": True}}, "inner.size"),
        ({"other": 1}, "other: Unexpected"),
        ({"inner": {"size": 3, "other": 1}}, "inner.other: Unexpected"),
        ({"name": object()}, "not plain data"),
    ):
        with pytest.raises(ValueError, match=message):
            typed(Outer, data | change)
