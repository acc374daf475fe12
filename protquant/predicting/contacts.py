"""Predict contact maps for a FASTA file."""

import io
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protquant.checkpoints import load, scheme_of
from protquant.demo.memorized import contact_warnings, refuse_unknown
from protquant.errors import ProtquantError
from protquant.files import Manifest, OutputError, atomic_write, fingerprint, only_writer, prepare_folder, write_table
from protquant.models import ProteinModel
from protquant.options import ContactsOptions, takes
from protquant.predicting.plots import plot_contacts
from protquant.preparing.prepared import prepare
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.preparing.quantize_checkpoint import choose_recipe
from protquant.proteins import Fasta, Record, clean_sequence, read_fasta, refuse_nucleotides
from protquant.reporting.event_log import log_event
from protquant.reporting.failures import note_failure, read_failures, write_failures
from protquant.reporting.progress import Progress, note
from protquant.running.devices import parse_dtype, pick_device
from protquant.running.execution import Execution, is_float
from protquant.running.memory import is_out_of_memory

__all__ = ["contacts_fasta", "predict_contacts"]

_MIN_SEPARATION = 6
_PART = "contacts"  # the manifest without a part name is for structures
TABLE, TARGETS, FAILURES = "contacts.csv", "targets.csv", "failures.csv"


def predict_contacts(model: ProteinModel, sequence: str, *, even_so: bool = False) -> NDArray[np.float64]:
    """Return contact probabilities (C-beta closer than 8 angstrom) of one chain, shape (l, l).

    Parameters
    ----------
    model : ProteinModel
        The model; a folding model uses its language model.
    sequence : str
        Sequence of one chain.
    even_so : bool
        Whether to let the demo model predict sequences that it has not memorized (it knows almost nothing about
        contacts), and any model sequences that look like DNA or RNA.

    Raises
    ------
    ProtquantError
        If the sequence has several chains or letters that are not residues, does not fit in memory, overflows the
        model's number type or was not memorized by the demo model, or if the model has no contact head.
    """
    cleaned, _ = clean_sequence(sequence)
    if ":" in cleaned:
        raise ProtquantError("contacts are predicted for single chains; give each chain as a record of its own")
    if not even_so:
        refuse_nucleotides(sequence)
        refuse_unknown(model, cleaned)
    language_model = model.language_model
    try:
        with torch.no_grad():
            predicted = language_model.contacts(language_model.tokenize([cleaned]))
            probabilities = np.asarray(predicted[0].double().cpu().numpy())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ProtquantError(f"{len(cleaned)} residues ran out of memory; use a machine with more") from error
    if not np.isfinite(probabilities).all():
        raise ProtquantError("the contact probabilities are not finite; predict them with --dtype float32")
    return probabilities


@takes(ContactsOptions)
def contacts_fasta(options: ContactsOptions) -> dict[str, Any]:
    """Predict the contacts of every record with ESM-2, or with the language model of a folding model.

    Writes `contacts.csv` (for each target of length L the L most probable pairs at least 6 residues apart),
    `targets.csv` (one row per target, with the raw header), `failures.csv` if records failed, and for each target
    `<name>_contacts.npy` (all probabilities, float32) and `<name>_contacts.png`. A repeated run skips targets that are
    done with the same settings (`manifest.contacts.jsonl`).

    Returns
    -------
    dict
        `output`, `table`, `targets` (one row each), `execution` (of every part of the model) and `failures`.

    Raises
    ------
    ProtquantError
        If the input, the model, the recipe or the folder cannot be used at all, another process writes to the folder,
        or files can no longer be written.
    """
    if not (math.isfinite(options.top) and options.top >= 0):
        raise ProtquantError(f"the number of pairs is {options.top} lengths; give 0 or more")
    recipe, saved = choose_recipe(options.model, options.quant)
    running = Execution(recipe, options.execution, options.backend, pick_device(options.cpu_only))
    sequences = calibration_sequences(options.calibration)
    records = read_fasta(options.fasta, nucleotides=options.even_so)
    prepare_folder(options.output)
    with only_writer(options.output):
        run = _Run(options.output, records, Manifest.load(options.output, _PART))
        prepared = None
        if options.cache and saved is None and not is_float(recipe):
            prepared = prepare(options.model, recipe, sequences, folding=False, cpu_only=options.cpu_only)
            saved = None if prepared is None else scheme_of(prepared)
        network = load(
            prepared or options.model, dtype=parse_dtype(options.dtype), device=pick_device(options.cpu_only)
        )
        language_model = network.language_model
        settings = {
            "model_fingerprint": network.fingerprint,
            "recipe": recipe.to_dict(),
            **running.settings(),
            "dtype": options.dtype,
            "top": options.top,
            "calibration": fingerprint({"sequences": sequences}) if saved is None and not is_float(recipe) else None,
            "even_so": options.even_so and bool(contact_warnings(language_model)),
        }
        prints = {
            record.name: fingerprint({**settings, "header": record.header, "sequence": record.sequence})
            for record in records.records
        }
        pending = [
            record
            for record in records.records
            if options.overwrite or not run.is_done(record, prints[record.name], options.plots)
        ]
        done, count = len(records.records) - len(pending), len(records.records)
        note(f"{done} of {count} targets are done already with these settings, {len(pending)} are to be done")
        warnings = contact_warnings(language_model)
        for warning in warnings:
            note(f"WARNING: {warning}", "warning")
        if pending:
            quantized, report = language_model, saved.report if saved else None
            if report is None:
                quantized, report = quantize(
                    language_model, recipe, sequences, execution="simulate", progress=sys.stderr.isatty()
                )
            note(str(report))
            quantized = running.convert(quantized)
            if running.integer:
                note(running.summary())
            made_by = {
                "version": version("protquant"),
                "model": options.model,
                "model_fingerprint": network.fingerprint,
            }
            made_by["recipe"] = recipe.name
            tell = Progress(f"contacts {records.path.name}")
            tell("proteins", "protein", 0, len(pending))
            with tell.during(quantized):
                for number, record in enumerate(pending, start=1):
                    try:
                        probabilities = predict_contacts(quantized, record.sequence, even_so=options.even_so)
                        files = [options.output / f"{record.name}_contacts.npy"]
                        _save_array(probabilities.astype(np.float32), files[0])
                        if options.plots:
                            files.append(options.output / f"{record.name}_contacts.png")
                            plot_contacts(probabilities, record.name, files[1], warnings)
                    except OutputError:
                        raise
                    except ProtquantError as error:
                        run.failures.append(note_failure(records, record, str(error)))
                    else:
                        row = {
                            "target": {
                                "name": record.name,
                                "header": record.header,
                                "length": record.length,
                                **made_by,
                                **running.columns(),
                                "warnings": "; ".join(warnings),
                                "substitutions": "; ".join(record.substitutions),
                            },
                            "pairs": _most_probable(probabilities, round(options.top * record.length)),
                        }
                        run.manifest.record(record.name, record.header, prints[record.name], files, row)
                        log_event("done", target=record.name, length=record.length)
                    tell("proteins", "protein", number, len(pending), record.name)
        return run.finish(running.to_dict() if pending else {})


class _Run:
    """Results of the records of a file."""

    def __init__(self, output: Path, records: Fasta, manifest: Manifest) -> None:
        self.output, self.records, self.manifest = output, records, manifest
        self.failures = read_failures(records)

    def is_done(self, record: Record, print_: str, plots: bool) -> bool:
        """Return whether a record is done with these settings, including its figure if `plots` is True."""
        entry = self.manifest.own_entries.get(record.name)
        drawn = not plots or (entry is not None and f"{record.name}_contacts.png" in entry.files)
        return drawn and self.manifest.is_done(record.name, print_)

    def finish(self, execution: dict[str, Any]) -> dict[str, Any]:
        """Write the tables, and return the results."""
        failed = {failure["name"] for failure in self.failures}
        entries = self.manifest.own_entries
        rows = [entries[record.name].row for record in self.records.records if record.name not in failed]
        targets = [dict(row["target"]) for row in rows]
        pairs = [{"name": row["target"]["name"], **pair} for row in rows for pair in row["pairs"]]
        table = write_table(pairs, self.output / TABLE, columns=["name", "i", "j", "probability"])
        made_by = ["version", "model", "model_fingerprint", "recipe", "execution", "kernels", "operations"]
        columns = ["name", "header", "length", *made_by, "warnings", "substitutions"]
        write_table(targets, self.output / TARGETS, columns=columns)
        write_failures(self.failures, self.records, self.output / FAILURES)
        return {
            "output": str(self.output),
            "table": str(table),
            "targets": targets,
            "execution": execution,
            "failures": self.failures,
        }


def _save_array(array: NDArray[np.float32], path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    atomic_write(path, buffer.getvalue())


def _most_probable(probabilities: NDArray[np.float64], count: int) -> list[dict[str, Any]]:
    """Return the most probable pairs, in descending order; residues are counted from 1."""
    first, second = np.triu_indices(len(probabilities), _MIN_SEPARATION)
    order = np.argsort(-probabilities[first, second], kind="stable")[:count]
    i, j = first[order], second[order]
    columns = (i + 1).tolist(), (j + 1).tolist(), probabilities[i, j].round(4).tolist()
    return [dict(zip(("i", "j", "probability"), pair, strict=True)) for pair in zip(*columns, strict=True)]
