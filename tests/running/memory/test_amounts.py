import pytest
from hypothesis import given
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.running.memory import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12GiB", 12 * 2**30), ("8 GB", 8 * 10**9), (" 500MiB ", 500 * 2**20), ("1.5gib", 3 * 2**29), (2**30, 2**30)],
)
def test_amounts_are_read_as_people_write_them(text: str | int, amount: int):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["much", "", "-3GiB", "12 gigs", "0x10", "GiB"])
def test_what_is_no_amount_is_refused_with_examples(text: str):
    with pytest.raises(ProtquantError, match="12GiB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["12", 12, "0GiB"])
def test_a_forgotten_unit_is_refused(text: str | int):
    with pytest.raises(ProtquantError, match="give a unit too"):
        parse_bytes(text)


@given(st.integers(min_value=2**28, max_value=2**45))
def test_amounts_are_written_to_a_hundredth(amount: int):
    assert abs(parse_bytes(format_bytes(amount)) - amount) <= 2**30 / 199
