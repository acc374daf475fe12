"""Cleaning sequences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.proteins import AMINO_ACIDS, SUBSTITUTIONS, SequenceError, clean_sequence


def test_letters_that_esmfold_lacks_are_replaced_and_counted() -> None:
    sequence, notes = clean_sequence("MUUOBZJX")
    assert sequence == "MCCKDELX"
    assert notes == ("2 x U -> C", "1 x O -> K", "1 x B -> D", "1 x Z -> E", "1 x J -> L")


def test_case_white_space_and_a_final_stop_are_normalized() -> None:
    assert clean_sequence(" mk\tga\n gw*\n") == (
        "MKGAGW",
        ("lower case -> upper case", "1 x trailing * (stop codon) dropped"),
    )


def test_a_stop_may_end_each_chain() -> None:
    assert clean_sequence("MK*:GA*")[0] == "MK:GA"


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("", "empty", "add the residues"),
        (" \n", "empty", "add the residues"),
        ("*", "empty", "add the residues"),
        ("MK-GA", "gap '-' at position 3", "remove gap characters; this looks like an alignment"),
        ("MK..GA", "gap '.'", "remove gap characters; this looks like an alignment"),
        ("MK*GA", "stop codon '*' at position 3", "end the sequence there"),
        ("MK1GA", "digit '1' at position 3", "remove position numbers"),
        ("MK@GA", "illegal character '@' at position 3", "one-letter amino acid codes"),
        ("MK\N{LATIN SMALL LETTER SHARP S}", "illegal character", "one-letter"),
        ("MK\N{LATIN SMALL LETTER DOTLESS I}", "illegal character", "one-letter"),
        ("MK\N{ZERO WIDTH SPACE}GA", "illegal character '\\u200b'", "one-letter"),
        ("MK::GA", "chain 2 of 3 is empty", "put ':' between two chains"),
        (":MK", "chain 1 of 2 is empty", "put ':' between two chains"),
        ("MK:", "chain 2 of 2 is empty", "put ':' between two chains"),
        ("MK:*", "chain 2 of 2 is empty", "put ':' between two chains"),
        ("XX:X", "every residue is unknown", "give the amino acids"),
    ],
)
def test_what_cannot_be_folded_is_refused_with_a_remedy(text: str, reason: str, remedy: str) -> None:
    with pytest.raises(SequenceError) as caught:
        clean_sequence(text)
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


def test_the_limit_counts_residues_not_separators() -> None:
    assert clean_sequence("MK:GA", max_length=4)[0] == "MK:GA"
    with pytest.raises(SequenceError, match="4 residues are more than the limit of 3"):
        clean_sequence("MK:GA", max_length=3)


@given(st.text(max_size=40) | st.text("MKux:*- 1\n", max_size=20))
def test_any_text_is_cleaned_or_refused(text: str) -> None:
    try:
        sequence, _ = clean_sequence(text)
    except ProtquantError:
        return
    assert set(sequence) <= set(AMINO_ACIDS + "X:")
    assert not set(sequence) & set(SUBSTITUTIONS)
    assert all(sequence.split(":"))
    assert clean_sequence(sequence) == (sequence, ())
