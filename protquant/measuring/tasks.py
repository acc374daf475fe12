"""Tasks to score a model on: folding, contacts, masked residues; against references and the float model."""

import hashlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.measuring.masking import masked_logits
from protquant.models import ESMFold, LanguageModel, ProteinModel
from protquant.options import MASK_EVERY
from protquant.predicting.contacts import predict_contacts
from protquant.predicting.folding import check_folding_options, fold_within_memory
from protquant.proteins import Prediction, Record, read_fasta
from protquant.reporting.progress import note_rejected
from protquant.reporting.steps import Steps
from protquant.scores import (
    cb_distances,
    contact_precision,
    lddt_ca,
    lddt_ca_per_residue,
    logit_kl,
    masked_accuracy,
    match_residues,
    plddt_error,
    probability_drift,
    pseudo_perplexity,
    rmsd_ca,
    score_structures,
    tm_score,
)
from protquant.structures import Reference, reference_from_atoms

__all__ = [
    "ContactTask",
    "LanguageTask",
    "Outcome",
    "StructureTask",
    "Task",
    "heldout_records",
]

_STRUCTURE_SCORES = ("tm_score", "gdt_ts", "lddt_ca", "rmsd_ca")
_NO_SCORES = ("target", "length", "positions")

_Target = Reference | Record


def heldout_records(fasta: str | Path | None = None, limit: int | None = None) -> list[Record]:
    """Return proteins of a FASTA file, by default the 20 shipped UniProt proteins that are not used for calibration.

    Raises
    ------
    ProtquantError
        If the file cannot be read or has no usable record, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ProtquantError(f"limit is {limit}: give a number of sequences of at least 1, or leave it out for all.")
    if fasta is None:
        with as_file(files("protquant.proteins") / "data" / "heldout.fasta") as path:
            return heldout_records(path, limit)
    records = read_fasta(fasta)
    if not records.records:
        raise ProtquantError(f"{fasta}: none of its {len(records.rejected)} records can be used as a held-out sequence")
    note_rejected(records)
    return records.records[:limit]


@dataclass
class Outcome:
    """Results of a model on the targets of a task.

    Attributes
    ----------
    targets : list of dict
        `target`, `length` and scores of each target that succeeded.
    failures : list of dict
        `target` and `error` of each target that failed.
    seconds : float
        Duration in seconds.
    """

    targets: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def undefined(self) -> dict[str, list[str]]:
        """Targets for which a score is NaN, by score; they are not part of its mean."""
        frame = pd.DataFrame(self.targets)
        scores = [name for name in frame.columns if name not in _NO_SCORES]
        missing = {name: [str(target) for target in frame.target[frame[name].isna()]] for name in scores}
        return {name: targets for name, targets in missing.items() if targets}


class Task(ABC):
    """Targets, and a way to score a model on them.

    Parameters
    ----------
    targets : sequence of Reference or Record
        Targets with unique names.

    Attributes
    ----------
    baseline : dict
        Predictions of the float model by target, the references of drift; `run` fills it.
    """

    name: ClassVar[str]

    def __init__(self, targets: Sequence[_Target]) -> None:
        self.targets = list(targets)
        self.baseline: dict[str, NDArray[np.floating]] = {}

    def network(self, model: ProteinModel, name: str) -> ProteinModel:  # noqa: ARG002
        """Return the part of a model that is scored: the language model of a folding model, except for structures.

        Raises
        ------
        ProtquantError
            If the model does not support the task.
        """
        return model.language_model

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the inputs of the scores besides the model, for fingerprints."""

    @abstractmethod
    def predict(self, model: Any, target: Any) -> Any:
        """Return the model's prediction for one target."""

    @abstractmethod
    def score(self, target: Any, answer: Any, is_float: bool) -> dict[str, Any]:
        """Return `length` and scores of a result of `predict`; store the float model's prediction in `baseline`."""

    def run(self, model: ProteinModel, label: str, is_float: bool = False) -> Outcome:
        """Score a model on all targets; failed targets are listed separately.

        Parameters
        ----------
        label : str
            Label of the progress bar, which is drawn if standard error is a terminal.
        is_float : bool
            Whether this is the float model.
        """
        outcome = Outcome()
        started = time.perf_counter()
        for target in Steps(self.targets, desc=label, unit="protein", disable=not sys.stderr.isatty(), leave=False):
            try:
                scores = self.score(target, self.predict(model, target), is_float)
                outcome.targets.append({"target": target.name, **scores})
            except ProtquantError as error:
                outcome.failures.append({"target": target.name, "error": str(error)})
        outcome.seconds = time.perf_counter() - started
        return outcome

    def means(self, outcome: Outcome) -> dict[str, float]:
        """Return the mean of every score over the targets that have it (see `Outcome.undefined`)."""
        frame = pd.DataFrame(outcome.targets).drop(columns=list(_NO_SCORES), errors="ignore")
        return {str(name): float(value) for name, value in frame.mean(numeric_only=True).items()}

    def float_says(self, target: _Target, own: NDArray[np.floating], is_float: bool) -> NDArray[np.floating] | None:
        """Return the float model's prediction, which is `own` for the float model itself; None if it failed."""
        if is_float:
            self.baseline[target.name] = own
        return self.baseline.get(target.name)


class StructureTask(Task):
    """Fold, and compare C-alpha atoms with the reference and the float model's prediction."""

    name = "structure"

    def __init__(
        self, targets: Sequence[Reference], num_recycles: int | None = None, chunk_size: int | None = None
    ) -> None:
        check_folding_options(num_recycles, chunk_size)
        super().__init__(targets)
        self.num_recycles, self.chunk_size = num_recycles, chunk_size

    def network(self, model: ProteinModel, name: str) -> ESMFold:
        if not isinstance(model, ESMFold):
            raise ProtquantError(f"{name} is a language model and cannot fold; use --task contacts or language")
        return model

    def settings(self) -> dict[str, Any]:
        return {"task": self.name, "num_recycles": self.num_recycles, "targets": _digests(self.targets)}

    def predict(self, model: ESMFold, target: Reference) -> Prediction:
        return fold_within_memory(
            model, [target.sequence], [target.name], num_recycles=self.num_recycles, chunk_size=self.chunk_size
        )[0]

    def score(self, target: Reference, answer: Prediction, is_float: bool) -> dict[str, Any]:
        folded = reference_from_atoms(answer.atoms, answer.name)
        scores = score_structures(folded, target).to_dict()
        float_ca = self.float_says(target, folded.ca, is_float)
        drift = dict.fromkeys(("tm_to_float", "rmsd_to_float", "lddt_drift"), np.nan)
        if float_ca is not None:
            drift["tm_to_float"] = tm_score(folded.ca, float_ca).score
            drift["rmsd_to_float"] = rmsd_ca(folded.ca, float_ca)
            drift["lddt_drift"] = 1 - lddt_ca(folded.ca, float_ca)
        return {
            "length": len(target),
            **{name: scores[name] for name in _STRUCTURE_SCORES},
            **_plddt_scores(answer, folded, target),
            "ptm": answer.ptm,
            **drift,
        }


class ContactTask(Task):
    """Predict contacts, and compare them with those of the reference and with the float model's."""

    name = "contacts"

    def settings(self) -> dict[str, Any]:
        return {"task": self.name, "targets": _digests(self.targets)}

    def predict(self, model: LanguageModel, target: Reference) -> NDArray[np.floating]:
        return predict_contacts(model, target.sequence, even_so=True)

    def score(self, target: Reference, answer: NDArray[np.floating], is_float: bool) -> dict[str, Any]:
        before = self.float_says(target, answer, is_float)
        return {
            "length": len(target),
            **contact_precision(answer, cb_distances(target.cb)),
            "contact_drift": np.nan if before is None else probability_drift(answer, before),
        }


class LanguageTask(Task):
    """Mask residues, predict them, and compare the predictions with the truth and the float model's predictions."""

    name = "language"

    def __init__(self, targets: Sequence[Record], mask_every: int | None = MASK_EVERY) -> None:
        if mask_every is not None and mask_every < 1:
            raise ProtquantError(f"mask_every is {mask_every}; give 1 or more, or leave it out for one at a time")
        super().__init__(targets)
        self.mask_every = mask_every

    def settings(self) -> dict[str, Any]:
        targets = {target.name: target.sequence for target in self.targets}
        return {"task": self.name, "mask_every": self.mask_every, "targets": targets}

    def predict(self, model: LanguageModel, target: Record) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return masked_logits(model, target.sequence, self.mask_every)

    def score(
        self, target: Record, answer: tuple[NDArray[np.float32], NDArray[np.int64]], is_float: bool
    ) -> dict[str, Any]:
        logits, truth = answer
        before = self.float_says(target, logits, is_float)
        return {
            "length": target.length,
            "positions": len(truth),
            "masked_accuracy": masked_accuracy(logits, truth),
            "pseudo_perplexity": pseudo_perplexity(logits, truth),
            "logit_kl": np.nan if before is None else logit_kl(logits, before),
        }

    def means(self, outcome: Outcome) -> dict[str, float]:
        """Return means over all residues, not over proteins; perplexity is the exponential of a mean."""
        frame = pd.DataFrame(outcome.targets)
        frame["pseudo_perplexity"] = np.log(frame.pseudo_perplexity)
        means = {}
        for name in ("masked_accuracy", "pseudo_perplexity", "logit_kl"):
            rows = frame[frame[name].notna()]
            means[name] = float(np.average(rows[name], weights=rows.positions)) if len(rows) else float("nan")
        return means | {"pseudo_perplexity": float(np.exp(means["pseudo_perplexity"]))}


def _plddt_scores(prediction: Prediction, folded: Reference, reference: Reference) -> dict[str, float]:
    predicted, matched = match_residues(folded, reference)
    lddt = lddt_ca_per_residue(folded.ca[predicted], reference.ca[matched])
    return {"plddt": prediction.mean_plddt, "plddt_error": plddt_error(prediction.plddt[predicted], lddt)}


def _digests(references: Sequence[_Target]) -> Mapping[str, str]:
    """Return hashes of the sequence and coordinates of each reference."""
    digests = {}
    for reference in references:
        assert isinstance(reference, Reference)
        content = reference.sequence.encode() + reference.backbone.tobytes() + reference.cb.tobytes()
        digests[reference.name] = hashlib.sha256(content).hexdigest()
    return digests
