"""Drift: distance between the outputs of a model and the float model, per sequence; it needs no references."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from protquant.errors import ProtquantError, suggestion
from protquant.measuring.tasks import Outcome, Task
from protquant.models import ESMFold, LanguageModel, ProteinModel, encode_complexes
from protquant.proteins import Record
from protquant.running.batches import model_length
from protquant.running.memory import plan_memory
from protquant.scores import lddt_ca, logit_kl, probability_drift, tm_score

__all__ = ["DriftMeasure", "DriftTask", "FoldingDrift", "LanguageDrift", "check_drift", "drift_measure"]

_CA = 1  # of the 37 atoms


class DriftMeasure(Protocol):
    """Interface of measures of drift."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers, the main one first."""

    @property
    def smooth(self) -> tuple[str, ...]:
        """Names of the numbers that grow with every small change, and so can rank parts of a model."""

    def run(self, model: Any, sequence: str) -> Any:
        """Return the output of the model for `compare`, without gradients."""

    def compare(self, answer: Any, float_answer: Any) -> dict[str, float]:
        """Return the numbers by name; 0 if the outputs are equal."""


@dataclass(frozen=True)
class _LanguageAnswer:
    logits: NDArray[np.float32] | None
    contacts: NDArray[np.float32] | None


@dataclass(frozen=True)
class LanguageDrift:
    """Drift of a language model, in one pass over the unmasked sequence.

    `contact_drift` is the mean absolute change of contact probabilities (`protquant.scores.probability_drift`),
    `logit_kl` the mean over residues of KL(float || quantized) in nats.
    """

    names: tuple[str, ...] = ("contact_drift", "logit_kl")

    @property
    def smooth(self) -> tuple[str, ...]:
        """Both numbers, because contacts do not depend on the last feed-forward layer, but logits do."""
        return self.names

    @torch.no_grad()
    def run(self, model: LanguageModel, sequence: str) -> _LanguageAnswer:
        """Run the model on one chain."""
        if ":" in sequence:
            raise ProtquantError(
                "a language model is measured on single chains; give each chain as a record of its own"
            )
        logits, contacts = model.logits_and_contacts(model.tokenize([sequence]))
        return _LanguageAnswer(
            None if logits is None else logits[0, 1:-1].float().cpu().numpy(),
            None if contacts is None else contacts[0].float().cpu().numpy(),
        )

    def compare(self, answer: _LanguageAnswer, float_answer: _LanguageAnswer) -> dict[str, float]:
        """Return both numbers, or the one whose head the model has."""
        drift = {}
        if answer.contacts is not None and float_answer.contacts is not None:
            drift["contact_drift"] = probability_drift(answer.contacts, float_answer.contacts)
        if answer.logits is not None and float_answer.logits is not None:
            drift["logit_kl"] = logit_kl(answer.logits, float_answer.logits)
        return drift


@dataclass(frozen=True)
class _FoldingAnswer:
    ca: NDArray[np.float32]
    distogram: NDArray[np.float32]


@dataclass(frozen=True)
class FoldingDrift:
    """Drift of a folding model from the structure that the float model predicts.

    `lddt_drift` is 1 - lDDT-CA, `tm_drift` 1 - TM-score, and `distogram_kl` the mean over pairs of residues of
    KL(float || quantized) in nats. lDDT ignores changes of distances below half an angstrom, and most single parts
    cause smaller ones.

    Parameters
    ----------
    num_recycles : int, optional
        Number of recycles; by default as in training.
    """

    num_recycles: int | None = None
    names: tuple[str, ...] = ("lddt_drift", "distogram_kl", "tm_drift")
    smooth: tuple[str, ...] = ("tm_drift", "distogram_kl")

    @torch.no_grad()
    def run(self, model: ESMFold, sequence: str) -> _FoldingAnswer:
        """Run the model on one protein; chains are separated by ':'."""
        batch = encode_complexes([sequence]).to(model.device)
        chunk_size = plan_memory(model, model_length(sequence), 1).chunk_size
        output = model(batch, num_recycles=self.num_recycles, chunk_size=chunk_size)
        residues = batch.chain_index[0] >= 0
        distogram = output.distogram_logits[0][residues][:, residues].float().cpu().numpy()
        return _FoldingAnswer(
            output.positions[0, residues, _CA].float().cpu().numpy(), distogram.reshape(-1, distogram.shape[-1])
        )

    def compare(self, answer: _FoldingAnswer, float_answer: _FoldingAnswer) -> dict[str, float]:
        """Return all three numbers."""
        return {
            "lddt_drift": 1 - lddt_ca(answer.ca, float_answer.ca),
            "distogram_kl": logit_kl(answer.distogram, float_answer.distogram),
            "tm_drift": 1 - tm_score(answer.ca, float_answer.ca).score,
        }


class DriftTask(Task):
    """Task that measures the drift from the float model on sequences; it needs no references."""

    name = "drift"

    def __init__(self, measure: DriftMeasure, sequences: Sequence[str]) -> None:
        super().__init__([Record(str(number), each, 0, str(number)) for number, each in enumerate(sequences, start=1)])
        self.measure = measure

    def network(self, model: ProteinModel, name: str) -> ProteinModel:  # noqa: ARG002
        return model

    def settings(self) -> dict[str, Any]:
        return {"task": self.name, "measure": repr(self.measure), "targets": [each.sequence for each in self.targets]}

    def predict(self, model: ProteinModel, target: Record) -> Any:
        return self.measure.run(model, target.sequence)

    def score(self, target: Record, answer: Any, is_float: bool) -> dict[str, Any]:
        before = self.float_says(target, answer, is_float)
        return {"length": target.length, **self.measure.compare(answer, before)}

    def means(self, outcome: Outcome) -> dict[str, float]:
        """Return the mean of each drift over all sequences, none of which may have failed."""
        for failure in outcome.failures:
            raise ProtquantError(failure["error"])
        rows = outcome.targets
        return {name: sum(row[name] for row in rows) / len(rows) for name in self.measure.names}


def drift_measure(model: ProteinModel, num_recycles: int | None = None) -> DriftMeasure:
    """Return the measure of drift for a model.

    Raises
    ------
    ProtquantError
        If it is a language model without any head.
    """
    if "structure" in model.tasks:
        return FoldingDrift(num_recycles)
    measured = (("contact_drift", "contacts"), ("logit_kl", "language"))
    names = tuple(name for name, task in measured if task in model.tasks)
    if not names:
        raise ProtquantError("the checkpoint has neither a contact head nor a language-model head to measure drift by")
    return LanguageDrift(names)


def check_drift(measure: DriftMeasure, name: str | None) -> str:
    """Return the name of the drift to use: `name`, or the first of the measure.

    Raises
    ------
    ProtquantError
        If the measure does not have this name.
    """
    if name is None:
        return measure.names[0]
    if name not in measure.names:
        raise ProtquantError(f"this model has no drift {name!r}; {suggestion(name, measure.names)}")
    return name
