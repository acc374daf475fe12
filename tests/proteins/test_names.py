"""File stems from headers."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protquant.proteins import MAX_NAME_LENGTH, header_names, safe_name, unique_names

HEADERS = st.text(max_size=150) | st.text("aA.-_/\\ 2:\N{FULLWIDTH FULL STOP}\N{FULLWIDTH SOLIDUS}", max_size=12)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("sp|P69905|HBA_HUMAN Hemoglobin subunit alpha", "sp_P69905_HBA_HUMAN"),
        ("../../etc/passwd", "etc_passwd"),
        ("/absolute", "absolute"),
        ("C:\\windows\\system32", "C_windows_system32"),
        ("--help", "help"),
        (".hidden", "hidden"),
        ("a/../b", "a_._b"),
        ("1abc.A", "1abc.A"),
        ("CON", "record_CON"),
        ("nul.pdb", "record_nul.pdb"),
        ("com\N{SUPERSCRIPT ONE}", "record_com1"),
        ("console", "console"),
        ("\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}\N{FULLWIDTH SOLIDUS}x", "x"),
        ("Prot\N{LATIN SMALL LETTER E WITH ACUTE}ine", "Proteine"),
        ("x" * 300, "x" * 100),
    ],
)
def test_headers_become_plain_stems(header: str, name: str) -> None:
    assert safe_name(header) == name


@pytest.mark.parametrize("header", ["", "   ", "...", "|||", "\N{CJK UNIFIED IDEOGRAPH-86CB}"])
def test_a_header_with_nothing_usable_is_named_by_its_number(header: str) -> None:
    assert safe_name(header, ordinal=7) == "record_7"


@given(HEADERS)
@example("..")
@example("~root")
def test_a_name_never_leaves_its_folder(header: str) -> None:
    name = safe_name(header)
    folder = Path("/out")
    assert (folder / f"{name}.pdb").resolve().parent == folder
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set("/\\:*?\"<>| '$`;&")
    assert ".." not in name
    assert name[0] not in ".-"
    assert name[-1] not in ". "
    assert 1 <= len(name) <= MAX_NAME_LENGTH
    assert safe_name(name) == name


@given(st.lists(HEADERS | st.sampled_from(["a", "A", "a_2", "A_3", "x" * 120, "x" * 99 + ".y", ""]), max_size=12))
def test_names_in_a_file_are_unique_whatever_the_case(headers: list[str]) -> None:
    names = unique_names(headers)
    assert len({name.lower() for name in names}) == len(headers)
    assert all(len(name) <= MAX_NAME_LENGTH for name in names)
    assert all(safe_name(name) == name for name in names)


def test_a_header_that_names_itself_keeps_its_name() -> None:
    assert unique_names(["a", "A", "a_2", "a"]) == ["a", "A_3", "a_2", "a_4"]


def test_many_records_of_one_name_take_linear_time() -> None:
    assert unique_names(["same"] * 20_000)[-1] == "same_20000"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("sp|P69905|HBA_HUMAN Hemoglobin subunit alpha", "sp|P69905|HBA_HUMAN Hemoglobin subunit alpha"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("C:\\x\ty", "C:_x_y"),
        ("", "record_7"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 200, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 120),
    ],
)
def test_whole_headers_become_stems_that_are_no_paths(header: str, name: str) -> None:
    assert header_names([header], [7]) == [name]


@given(st.lists(HEADERS | st.sampled_from(["a", "A", "a_2", "a/2", "e\u0301", "\u00e9", "x" * 300]), max_size=12))
def test_stems_of_whole_headers_are_unique_and_stay_in_their_folder(headers: list[str]) -> None:
    names = header_names(headers, range(1, len(headers) + 1))
    assert len({unicodedata.normalize("NFC", name.lower()) for name in names}) == len(headers)
    for name in names:
        assert Path("/out", f"{name}.pdb").parent == Path("/out")
        assert 1 <= len(name.encode()) <= 240
