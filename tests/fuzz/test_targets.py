"""Every parser gives a value for any file, or an error that names the file (`targets.py` says how each is called)."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS, Target

EVERY = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
# A tenth of what the profile says: ten by default, and thousands by --hypothesis-profile=thorough.
FEW = settings(deadline=None, max_examples=max(10, settings.default.max_examples // 10))


@EVERY
def test_valid_files_are_taken(target: Target):
    assert all(target.check(seed) for seed in target.seeds())


@EVERY
@FEW
@given(st.integers(0, 2**32))
def test_changed_files_are_taken_or_refused_by_name(target: Target, number: int):
    random = Random(number)
    target.check(target.mutate(random.choice(target.seeds()), random))


@EVERY
@FEW
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused_by_name(target: Target, data: bytes):
    target.check(data)


@pytest.mark.parametrize(
    ("target", "path"),
    [pytest.param(t, path, id=f"{t.name}-{path.name}") for t in TARGETS.values() for path in t.kept()],
)
def test_what_broke_a_parser_once_does_so_no_more(target: Target, path):
    target.check(path.read_bytes())
