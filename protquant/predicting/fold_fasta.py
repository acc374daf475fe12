"""Fold a FASTA file into a folder of structures: batches, memory, failures, resuming."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from protquant.checkpoints import Scheme, load, scheme_of
from protquant.demo.memorized import refuse_unknown
from protquant.errors import ProtquantError
from protquant.files import Manifest, fingerprint, only_writer, prepare_folder
from protquant.models import ESMFold
from protquant.options import FoldOptions, takes
from protquant.predicting import Shard
from protquant.predicting.file_contents import Contents
from protquant.predicting.fold_job import FoldJob, record_all
from protquant.predicting.fold_outputs import Layout, layout_of
from protquant.predicting.fold_run import FoldRun, note_warnings
from protquant.predicting.fold_workers import each_by_workers, in_another_process, threads_for
from protquant.predicting.folding import check_folding_model, check_folding_options
from protquant.predicting.merge_shards import check_shards
from protquant.preparing.prepared import prepare
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.preparing.quantize_checkpoint import choose_recipe
from protquant.proteins import Fasta, Record, read_fasta
from protquant.quant import Recipe, load_recipe, needs_sequences
from protquant.reporting.event_log import log_event
from protquant.reporting.progress import Progress, note
from protquant.running.batches import length_batches, model_length
from protquant.running.devices import parse_dtype, pick_device
from protquant.running.execution import Execution, is_float
from protquant.running.memory import MemoryBudget, folding_skeleton, memory_budget, parse_bytes
from protquant.running.memory.weights import bytes_to_come

__all__ = ["fold_fasta"]

# Version of the content of files. Increasing it makes runs fold all finished targets again.
_CONTENT = 3


@takes(FoldOptions)
def fold_fasta(options: FoldOptions) -> FoldRun:
    """Fold every record of a FASTA file.

    For each target it writes `<name>.pdb`, `<name>.cif` (pLDDT, 0-100, in the B-factor column), `<name>_pae.json` (in
    the format of the AlphaFold database, with the positions of chains) and `<name>.png`, or the files of another
    layout. `predictions.csv` has one row for each target of the folder. A repeated run skips targets that are done with
    the same settings. Notes go to standard error; a warning about a prediction goes to standard error, its row, its
    figure and both structure files.

    Raises
    ------
    ProtquantError
        If the input, the model, the recipe or the folder cannot be used at all, another process writes to the folder,
        or files can no longer be written. A record that cannot be folded raises no error: it is among the failures.
    """
    check_folding_options(options.num_recycles, options.chunk_size, options.recycle_tolerance)
    device, float_type = pick_device(options.cpu_only), parse_dtype(options.dtype)
    limit = None if options.max_memory is None else parse_bytes(options.max_memory)
    recipe, saved = choose_recipe(options.model, options.quant)
    running = Execution(recipe, options.execution, options.backend, device)
    sequences = calibration_sequences(options.calibration)
    records = (
        options.fasta if isinstance(options.fasta, Fasta) else read_fasta(options.fasta, nucleotides=options.even_so)
    )
    holding = Contents(options.b_factor, options.pae_in_cif, pae_beside="pae" not in options.skip_output)
    files = layout_of(options.layout, options.model, holding).without(options.skip_output, plots=options.plots)
    part = None if options.shard is None else Shard.parse(options.shard)
    label = "" if part is None else part.label
    records, batches, partition = _share(
        records, 0 if options.recycle_tolerance else options.max_tokens_per_batch, part
    )
    prepare_folder(options.output)
    with only_writer(options.output, label), threads_for(options.workers, device) as threads:
        check_shards(options.output, part, partition)
        run = FoldRun.begin(options.output, records, label)
        manifest = Manifest.load(options.output, label)
        if part is not None:
            manifest.begin(partition)

        skeleton = folding_skeleton(options.model)
        room = partial(memory_budget, skeleton, device=device, dtype=float_type, max_memory=limit)
        budget = room(recipe, running)
        budget.check_weights(f"{options.model} by {recipe.name}")
        known = (
            [] if options.overwrite else [name for name, entry in manifest.entries.items() if entry.status == "done"]
        )
        reasons = _nothing_fits(records, budget, options.chunk_size)
        if reasons and not any(record.name in known for record in records.records):
            for record, reason in zip(records.records, reasons, strict=True):
                run.fail(records, record, reason)
            return run.finish(records, manifest)

        prepared = None
        if options.cache and saved is None and not is_float(recipe):
            in_main = limit if device.type == "cpu" else None
            where: dict[str, Any] = {"max_memory": in_main, "cpu_only": options.cpu_only}
            if options.workers > 1:
                in_another_process(prepare, options.model, recipe, sequences, folding=True, **where)
            prepared = prepare(options.model, recipe, sequences, folding=True, **where)
            saved = None if prepared is None else scheme_of(prepared)
        if saved is None and not is_float(recipe):
            room(load_recipe("fp32"), None).check_weights(f"{options.model}, which is quantized in memory,")
        network = check_folding_model(load(prepared or options.model, dtype=float_type, device=device))
        # A quantized checkpoint already has its ranges.
        calibrates = saved is None and needs_sequences(network, recipe)
        run.settings = {
            "model": options.model,
            "model_fingerprint": network.fingerprint,
            "recipe": {key: value for key, value in recipe.to_dict().items() if key != "execution"},
            **running.settings(),
            "num_recycles": network.config.trunk.max_recycles - 1
            if options.num_recycles is None
            else options.num_recycles,
            # Left out if it is 0, so that targets from before this setting existed stay done.
            **({"recycle_tolerance": options.recycle_tolerance} if options.recycle_tolerance else {}),
            "dtype": options.dtype,
            "calibration": fingerprint({"sequences": sequences}) if calibrates else None,
        }
        log_event("settings", **run.settings)
        prints = _fingerprints(run, records, files, integer=running.integer)
        askable = _answerable(None if options.even_so else network, records, run, files, manifest.owners())
        pending = _pending(run, askable, manifest, prints, files, overwrite=options.overwrite)
        files.note_left_out(pending)
        if pending:
            manifest.reopen()
            network = _running(network, recipe, saved, sequences if calibrates else [], running)
            batches = _only(pending, batches)
            count = min(options.workers, len(batches))
            budget = MemoryBudget.of(network, limit).share(count, bytes_to_come(network))
            what = {"model": options.model, "recipe": recipe.name, "dtype": options.dtype}
            recycling = (options.num_recycles, options.recycle_tolerance)
            job = FoldJob(network, running, options.output, files, what, *recycling, options.chunk_size, budget)
            tell = Progress(f"fold {records.path.name}")
            tell("proteins", "protein", 0, len(pending))
            if count == 1:
                with tell.during(network):
                    record_all(map(job, batches), run, records, manifest, prints, tell, len(pending), options.on_batch)
            else:
                with closing(each_by_workers(job, batches, count, max(1, threads // count))) as finished:
                    record_all(finished, run, records, manifest, prints, tell, len(pending), options.on_batch)
            run.gpu_peak_bytes = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        files.finish(options.output)
        return run.finish(records, manifest)


def _running(
    network: ESMFold, recipe: Recipe, saved: Scheme | None, sequences: Sequence[str], running: Execution
) -> ESMFold:
    """Return the model to run: quantized (unless it was saved quantized), and converted by `running`."""
    report = saved.report if saved else None
    if report is None:
        network, report = quantize(
            network, recipe, sequences, execution="simulate", inplace=True, progress=sys.stderr.isatty()
        )
    note(str(report))
    network = running.convert(network)
    if running.integer:
        note(running.summary())
    return network


def _fingerprints(run: FoldRun, records: Fasta, files: Layout, *, integer: bool) -> dict[str, str]:
    """Return a fingerprint of all inputs of a prediction and its files, by name of record."""
    # The fingerprint of the weights identifies the model, not its name. Simulations have one kind of kernel.
    ignored = {"model"} if integer else {"model", "execution", "kernels"}
    decisive = {name: value for name, value in run.settings.items() if name not in ignored} | {"layout": _CONTENT}
    return {
        record.name: fingerprint(
            {**decisive, **files.contents.of(record), "header": record.header, "sequence": record.sequence}
        )
        for record in records.records
    }


def _pending(
    run: FoldRun,
    records: Sequence[Record],
    manifest: Manifest,
    prints: Mapping[str, str],
    files: Layout,
    *,
    overwrite: bool,
) -> list[Record]:
    """Return the records to fold; all others are already done."""
    known = {} if overwrite else manifest.entries
    pending, lacking = list[Record](), 0
    for record in records:
        done = record.name in known and manifest.is_done(record.name, prints[record.name])
        if done and files.is_complete(record, known[record.name].files):
            run.skipped.append(record.name)
        else:
            pending.append(record)
            lacking += done
    skipped = len(run.skipped)
    note(f"{skipped} of {len(records)} targets are done already with these settings, {len(pending)} are to be done")
    if lacking:
        note(
            f"{lacking} of them were done without all of the files that are wanted now in the layout {files.name}, and"
            " are folded again; their other files stay"
        )
    log_event("pending", done=skipped, left=len(pending))
    note_warnings(known[name].row for name in run.skipped)
    return pending


def _share(records: Fasta, max_tokens: int, part: Shard | None) -> tuple[Fasta, list[list[Record]], str]:
    """Return the records of a shard, its batches, and a fingerprint of all batches, which all shards share."""
    batches = _batches(records.records, max_tokens)
    partition = fingerprint({"batches": [[record.name for record in batch] for batch in batches]})
    if part is None:
        return records, batches, partition
    batches = part.take(batches)
    names = {record.name for batch in batches for record in batch}
    chosen = [record for record in records.records if record.name in names]
    return replace(records, records=chosen), batches, partition


def _batches(records: Sequence[Record], max_tokens: int) -> list[list[Record]]:
    """Return batches of records to fold together, shortest first, including finished records.

    The other records of a batch affect the last bits of a prediction, so batches must not depend on interruptions or
    shards.
    """
    indices = length_batches([record.sequence for record in records], max_tokens)
    return [[records[index] for index in batch] for batch in indices]


def _only(pending: Sequence[Record], batches: Sequence[list[Record]]) -> list[list[Record]]:
    """Return the batches reduced to pending records."""
    wanted = {record.name for record in pending}
    remaining = [[record for record in batch if record.name in wanted] for batch in batches]
    return [batch for batch in remaining if batch]


def _answerable(
    demo: ESMFold | None, records: Fasta, run: FoldRun, files: Layout, owners: Mapping[str, str]
) -> list[Record]:
    """Return the records that can be folded; all others become failures of the run.

    `demo` is the model, or None to accept sequences that the demo model has not memorized.
    """
    answerable = []
    for record in records.records:
        try:
            files.check_owned(record, owners)
            if demo is not None:
                refuse_unknown(demo, record.sequence)
            answerable.append(record)
        except ProtquantError as error:
            run.fail(records, record, str(error))
    return answerable


def _nothing_fits(records: Fasta, budget: MemoryBudget, chunk_size: int | None) -> list[str]:
    """Return the reason why each record does not fit in memory; empty if any record fits."""
    reasons = []
    for record in records.records:
        try:
            budget.plan(model_length(record.sequence), 1, chunk_size)
        except ProtquantError as error:
            reasons.append(str(error))
        else:
            return []
    return reasons
