"""Checks and warnings for the demo model, which has memorized the shipped chains and predicts nothing else."""

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
_COMPLEX = "the demo model has memorized these chains one by one: their relative position means nothing"
# Measured on the 50 chains, see README.md beside this file.
_CONTACTS = "the demo's language model knows next to nothing of contacts, not even of the chains that ship with it"


def is_demo(model: ProteinModel) -> bool:
    """Return whether a model is the demo or its language model, quantized or not, under any name."""
    return bool(model.lineage.float_fingerprint) and model.lineage.float_fingerprint == _fingerprint()


def refuse_unknown(model: ProteinModel, sequence: str) -> None:
    """Refuse a sequence that the demo has not memorized.

    Parameters
    ----------
    model : ProteinModel
        Any model; only the demo refuses sequences.
    sequence : str
        Cleaned sequence. For a complex, every chain must be memorized.

    Raises
    ------
    ProtquantError
        If the model is the demo and has not memorized the sequence.
    """
    if is_demo(model) and not _is_known(sequence):
        raise ProtquantError(
            f"the demo model has memorized {len(_chains())} chains, and this sequence is none of them: its predictions"
            " for others mean nothing. Name a released model, or predict anyway: --even-so, in Python even_so=True"
        )


def folding_warnings(model: ESMFold, sequence: str) -> list[str]:
    """Return the warnings for a structure of a cleaned sequence; none if the model is not the demo."""
    if not is_demo(model):
        return []
    if not _is_known(sequence):
        return [_UNKNOWN]
    return [_COMPLEX] if ":" in sequence else []


def contact_warnings(model: ProteinModel) -> list[str]:
    """Return the warnings for contacts of this model; none if it is not the demo."""
    return [_CONTACTS] if is_demo(model) else []


def notes_on_targets(model: ProteinModel, sequences: Iterable[str], shipped: bool) -> list[str]:
    """Return notes for a table of this model's scores; none if it is not the demo.

    Parameters
    ----------
    sequences : iterable of str
        Sequences of the targets.
    shipped : bool
        Whether the targets are the chains that ship with protquant.
    """
    if not is_demo(model):
        return []
    if shipped:
        return ["The demo has memorized these chains: its scores show only the loss by quantization."]
    known = [_is_known(clean_sequence(sequence)[0]) for sequence in sequences]
    if all(known):
        return []
    share = f"{len(known) - sum(known)} of these {len(known)} targets"
    return [f"The demo has not memorized {share}: its predictions for them, and their differences, mean nothing."]


@cache
def _fingerprint() -> str:
    config = files("protquant.demo") / "weights" / "config.json"
    return str(json.loads(config.read_text(encoding="utf-8"))["fingerprint"]) if config.is_file() else ""


@cache
def _chains() -> frozenset[str]:
    return frozenset(clean_sequence(reference.sequence)[0] for reference in load_references())


def _is_known(sequence: str) -> bool:
    return all(chain in _chains() for chain in sequence.split(":"))
