"""Checking and cleaning of sequences for ESMFold: the 20 amino acids, `X`, and `:` between chains."""

from protquant.errors import ProtquantError
from protquant.residues import AMINO_ACIDS, NEAREST_AMINO_ACID

__all__ = ["AMINO_ACIDS", "SUBSTITUTIONS", "SequenceError", "clean_sequence", "refuse_nucleotides"]

SUBSTITUTIONS = NEAREST_AMINO_ACID
"""Letters that ESMFold does not know, and the amino acid that replaces each. `X` stays: it is an unknown residue."""

_TRANSLATION = str.maketrans("".join(SUBSTITUTIONS), "".join(SUBSTITUTIONS.values()))
_KNOWN = frozenset(AMINO_ACIDS + "X:")
_NUCLEOTIDES = frozenset("ACGTUN")
_SHORT = 20
"""Length up to which a chain of nucleotide letters only is accepted, because it may be a peptide by chance."""


class SequenceError(ProtquantError):
    """Error for a sequence that cannot be folded.

    Attributes
    ----------
    reason : str
        Description of the fault.
    remedy : str
        Advice to the user.
    offset : int or None
        Index of the first wrong character, not counting white space; None if no single character is wrong.
    """

    def __init__(self, reason: str, remedy: str, offset: int | None = None) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.offset = offset


def clean_sequence(text: str, max_length: int | None = None) -> tuple[str, tuple[str, ...]]:
    """Return a sequence in normal form, and the changes that were made.

    White space is dropped, lower case becomes upper case, a `*` at the end of a chain (stop codon) is dropped and the
    letters of `SUBSTITUTIONS` are replaced.

    Parameters
    ----------
    text : str
        One-letter codes; `:` separates chains.
    max_length : int, optional
        Largest accepted number of residues of all chains.

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
    """Raise for a chain that looks like DNA or RNA: more than 20 letters, all of them from ACGTUN.

    Each of these letters is also an amino acid, so a gene would be folded as a protein without notice.

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
                "translate it to protein; if it is one, give `fold` or `contacts` the option --even-so (even_so=True)",
            )


def _refuse_characters(raw: str) -> None:
    """Raise for the first character that is not an amino acid, a chain break or a stop at the end of a chain."""
    for offset, character in enumerate(raw):
        # Only ASCII: str.upper turns some other letters into ASCII ("\N{LATIN SMALL LETTER SHARP S}" becomes "SS").
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
