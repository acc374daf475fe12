"""One-letter protein sequences as ESMFold can take them: the 20 amino acids, `X`, and `:` between chains."""

from protquant.errors import ProtquantError
from protquant.residues import AMINO_ACIDS, NEAREST_AMINO_ACID

__all__ = ["AMINO_ACIDS", "SUBSTITUTIONS", "SequenceError", "clean_sequence", "refuse_nucleotides"]

SUBSTITUTIONS = NEAREST_AMINO_ACID
"""Letters that ESMFold does not know, and the amino acid folded for each. `X` stays: it is an unknown residue."""

_TRANSLATION = str.maketrans("".join(SUBSTITUTIONS), "".join(SUBSTITUTIONS.values()))
_KNOWN = frozenset(AMINO_ACIDS + "X:")
_NUCLEOTIDES = frozenset("ACGTUN")
_SHORT = 20
"""Letters of a chain up to which it may be a peptide that has only these by chance."""


class SequenceError(ProtquantError):
    """A sequence that cannot be folded.

    Attributes
    ----------
    reason : str
        What is wrong.
    remedy : str
        What to do about it.
    offset : int or None
        Index of the first offending character in the text without its white space, where there is one.
    """

    def __init__(self, reason: str, remedy: str, offset: int | None = None) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.offset = offset


def clean_sequence(text: str, max_length: int | None = None) -> tuple[str, tuple[str, ...]]:
    """Normalize a sequence, and say what was changed.

    White space is dropped, lower case becomes upper case, a `*` at the end of a chain (stop codon) is dropped and the
    letters of `SUBSTITUTIONS` are replaced.

    Parameters
    ----------
    text : str
        One-letter codes; `:` separates chains.
    max_length : int, optional
        The most residues (of all chains together) to accept.

    Returns
    -------
    sequence : str
        Letters of `AMINO_ACIDS`, `X` and `:`.
    substitutions : tuple of str
        The changes, for instance `"2 x U -> C"`; white space is not mentioned.

    Raises
    ------
    SequenceError
        If the sequence is empty, has an empty chain, holds a gap, a digit, an inner `*` or any other character, is
        longer than `max_length`, or has no known residue at all.

    Examples
    --------
    >>> clean_sequence("mkU*:GA")
    ('MKC:GA', ('lower case -> upper case', '1 x trailing * (stop codon) dropped', '1 x U -> C'))
    """
    raw = "".join(text.split())
    if not raw:
        raise SequenceError("the sequence is empty", "add the residues, or remove the record")
    _refuse_characters(raw)
    notes = []
    upper = raw.upper()
    if upper != raw:
        notes.append("lower case -> upper case")
    chains = [chain.rstrip("*") for chain in upper.split(":")]
    if stops := upper.count("*"):
        notes.append(f"{stops} x trailing * (stop codon) dropped")
    if not all(chains):
        if len(chains) == 1:
            raise SequenceError("the sequence is empty but for '*'", "add the residues, or remove the record")
        raise SequenceError(
            f"chain {1 + chains.index('')} of {len(chains)} is empty",
            "put ':' between two chains only, not twice in a row and not at an end",
        )
    length = sum(map(len, chains))
    if max_length is not None and length > max_length:
        raise SequenceError(
            f"{length} residues are more than the limit of {max_length}",
            "raise the limit, or fold the domains one by one",
        )
    sequence = ":".join(chains)
    notes += [f"{count} x {old} -> {new}" for old, new in SUBSTITUTIONS.items() if (count := sequence.count(old))]
    sequence = sequence.translate(_TRANSLATION)
    if set(sequence) <= {"X", ":"}:
        raise SequenceError(
            "every residue is unknown (X)", "give the amino acids: ESMFold places no atoms for unknown residues"
        )
    return sequence, tuple(notes)


def refuse_nucleotides(text: str) -> None:
    """Raise for a sequence with a chain that reads as DNA or RNA: longer than 20 letters, all of them of ACGTUN.

    Each of them is an amino acid, too, so that a gene would be folded as a protein without a word.

    Raises
    ------
    SequenceError
        If there is such a chain.
    """
    for number, chain in enumerate("".join(text.split()).upper().split(":"), start=1):
        chain = chain.rstrip("*")  # noqa: PLW2901
        if len(chain) > _SHORT and _NUCLEOTIDES.issuperset(chain):
            which = f"chain {number}" if ":" in text else "the sequence"
            raise SequenceError(
                f"{which} reads as {'RNA' if 'U' in chain else 'DNA'}: {len(chain)} letters, all of them of ACGTUN",
                "translate it to protein; if it is one, `fold` and `contacts` take it with --even-so (even_so=True)",
            )


def _refuse_characters(raw: str) -> None:
    """Raise for the first character that is neither a letter to fold, a chain break nor a stop at a chain's end."""
    for offset, character in enumerate(raw):
        # ASCII first: str.upper turns some foreign letters into ASCII ones ("\N{LATIN SMALL LETTER SHARP S}" -> "SS").
        letter = character.upper() if character.isascii() else character
        if letter in _KNOWN or letter in SUBSTITUTIONS:
            continue
        where = f"at position {offset + 1}"
        if character == "*":
            if raw[offset:].split(":", 1)[0].strip("*"):
                raise SequenceError(
                    f"stop codon '*' {where}, inside the sequence",
                    "end the sequence there, or write X for an unknown residue",
                    offset,
                )
        elif character in "-.~":
            raise SequenceError(
                f"gap {character!r} {where}", "remove gap characters; this looks like an alignment", offset
            )
        elif character.isdigit():
            raise SequenceError(
                f"digit {character!r} {where}", "remove position numbers; a sequence has letters only", offset
            )
        else:
            raise SequenceError(
                f"illegal character {character!r} {where}",
                "use one-letter amino acid codes, X for unknown residues and ':' between chains",
                offset,
            )
