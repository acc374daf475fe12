"""What the demo model can be asked: it has memorized the chains that ship with protquant, and knows nothing else."""

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from protquant.errors import ProtquantError
from protquant.models import ESMFold, ProteinModel
from protquant.proteins import clean_sequence
from protquant.structures import load_references

__all__ = ["contact_warnings", "folding_warnings", "is_demo", "notes_on_targets", "refuse_unknown"]

_UNKNOWN = "the demo model has not memorized this sequence: structure and confidence mean nothing"
_COMPLEX = "the demo model has memorized these chains one by one: how they lie to each other means nothing"
# Measured on the 50 chains, see README.md beside this file.
_CONTACTS = "the demo's language model knows next to nothing of contacts, not even of the chains that ship with it"


def is_demo(model: ProteinModel) -> bool:
    """Whether a model is the demo or its language model: quantized or not, under whatever name it was stored."""
    return bool(model.lineage.float_fingerprint) and model.lineage.float_fingerprint == _fingerprint()


def refuse_unknown(model: ProteinModel, sequence: str) -> None:
    """Refuse a sequence that is none of the chains that the demo has memorized.

    Parameters
    ----------
    model : ProteinModel
        Any model; others than the demo are asked whatever it is.
    sequence : str
        Cleaned, as it is folded. Of a complex, every chain must be known.

    Raises
    ------
    ProtquantError
        If the model is the demo and has not memorized the sequence.
    """
    if is_demo(model) and not _is_known(sequence):
        raise ProtquantError(
            f"the demo model has memorized {len(_chains())} chains, and this sequence is none of them: what it says of"
            " others means nothing. Name a released model, or ask all the same: --even-so, in Python even_so=True"
        )


def folding_warnings(model: ESMFold, sequence: str) -> list[str]:
    """Warnings that go with what this model folds from a cleaned sequence; none for other models than the demo."""
    if not is_demo(model):
        return []
    if not _is_known(sequence):
        return [_UNKNOWN]
    return [_COMPLEX] if ":" in sequence else []


def contact_warnings(model: ProteinModel) -> list[str]:
    """Warnings that go with any contacts that this model predicts; none for other models than the demo."""
    return [_CONTACTS] if is_demo(model) else []


def notes_on_targets(model: ProteinModel, sequences: Iterable[str], shipped: bool) -> list[str]:
    """Sentences for the reader of a table of what this model says of many targets; none for others than the demo.

    Parameters
    ----------
    sequences : iterable of str
        Of the targets.
    shipped : bool
        Whether the targets are the chains that ship with protquant.
    """
    if not is_demo(model):
        return []
    if shipped:
        return ["The demo has memorized these chains: its scores say what quantization takes away, no more."]
    known = [_is_known(clean_sequence(sequence)[0]) for sequence in sequences]
    if all(known):
        return []
    share = f"{len(known) - sum(known)} of these {len(known)} targets"
    return [
        f"The demo has not memorized {share}: its answers for them mean nothing, nor do differences of such answers."
    ]


@cache
def _fingerprint() -> str:
    config = files("protquant.demo") / "weights" / "config.json"
    return str(json.loads(config.read_text(encoding="utf-8"))["fingerprint"]) if config.is_file() else ""


@cache
def _chains() -> frozenset[str]:
    return frozenset(clean_sequence(reference.sequence)[0] for reference in load_references())


def _is_known(sequence: str) -> bool:
    return all(chain in _chains() for chain in sequence.split(":"))
