"""A FASTA file to a folder of structures: batches, memory, failures, resuming."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from protquant.checkpoints import Scheme, load, scheme_of
from protquant.demo.memorized import refuse_unknown
from protquant.errors import ProtquantError
from protquant.files import Manifest, fingerprint, only_writer, prepare_folder
from protquant.models import ESMFold
from protquant.predicting import Shard
from protquant.predicting.file_contents import Contents
from protquant.predicting.fold_job import FoldJob, Kept, record_all
from protquant.predicting.fold_outputs import Layout, layout_of
from protquant.predicting.fold_run import FoldRun, note_warnings
from protquant.predicting.fold_workers import each_by_workers, in_another_process, threads_for
from protquant.predicting.folding import check_folding_model, check_folding_options
from protquant.predicting.merge_shards import check_shards
from protquant.preparing.prepared import prepare
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.preparing.quantize_checkpoint import choose_recipe
from protquant.proteins import PAE_RESIDUES, Fasta, Record, read_fasta
from protquant.quant import Recipe, load_recipe, needs_sequences
from protquant.reporting.event_log import log_event
from protquant.reporting.progress import Progress, note
from protquant.running.batches import length_batches, model_length
from protquant.running.devices import parse_dtype, pick_device
from protquant.running.execution import Execution, is_float
from protquant.running.memory import MemoryBudget, folding_skeleton, memory_budget, parse_bytes
from protquant.running.memory.weights import bytes_to_come

__all__ = ["fold_fasta"]

# Raised when the files of a target say more than they did: targets that were done before are then folded again.
_CONTENT = 3


def fold_fasta(
    fasta: Path | Fasta,
    output: Path,
    model: str = "esmfold_v1",
    quant: str = "fp32",
    *,
    execution: str | None = None,
    backend: str = "auto",
    num_recycles: int | None = None,
    recycle_tolerance: float = 0.0,
    max_tokens_per_batch: int = 1024,
    chunk_size: int | None = None,
    max_memory: int | str | None = None,
    cpu_only: bool = False,
    dtype: str = "float32",
    calibration: Path | None = None,
    cache: bool = True,
    plots: bool = True,
    overwrite: bool = False,
    even_so: bool = False,
    shard: str | None = None,
    workers: int = 1,
    skip_output: Sequence[str] = (),
    layout: str = "protquant",
    on_batch: Callable[[Sequence[Kept]], None] | None = None,
    b_factor: str = "plddt",
    pae_in_cif: int = PAE_RESIDUES,
) -> FoldRun:
    """Fold every record of a FASTA file.

    For each target `<name>.pdb`, `<name>.cif` (pLDDT, 0-100, in the B-factor column), `<name>_pae.json` (as the
    AlphaFold database has it, and where the chains are) and `<name>.png` are written, or the files of another layout,
    and a row of `predictions.csv`, which lists all targets of the folder. A run that is repeated skips the targets that
    are done with the same settings. Notes go to standard error; a warning about a prediction goes there, to its row,
    its picture and both structure files.

    Parameters
    ----------
    fasta : Path or Fasta
        What `read_fasta` gives, or a file that it reads: FASTA, plain or gzipped, or CSV with columns id and sequence;
        chains of a complex are joined by ':'.
    output : Path
        Folder, made if need be.
    model : str
        "demo", a released name such as "esmfold_v1", a folder, a file, or a name on the hub.
    quant : str
        Recipe: a shipped name or a YAML file. "fp32" quantizes nothing, and is the one for a quantized checkpoint.
    execution : str, optional
        "simulate", quantized and dequantized in float, or "integer", on codes where there are kernels for them; by
        default what the recipe says. What runs is told on standard error and in the table.
    backend : str
        Whose kernels multiply integers: "auto", "reference", "cpu" or "triton".
    num_recycles : int, optional
        By default what the model was trained for.
    recycle_tolerance : float
        In angstrom: recycling ends early where the distances between C-alpha atoms have changed by less since the pass
        before, as root mean square. Above 0 proteins are folded one at a time, so that when one ends depends on nothing
        else. 0: all recycles are done.
    max_tokens_per_batch : int
        Residues of short sequences that go through the model together; 0 folds one at a time.
    chunk_size : int, optional
        Rows of the pair that float blocks work on at a time; by default the most that fit in memory.
    max_memory : int or str, optional
        What the whole process may take, on a GPU its tensors there, in bytes or such as "12GiB"; by default what is
        free. What cannot fit is refused before anything is loaded.
    cpu_only : bool
        Do not use a GPU.
    dtype : str
        "float32", "bfloat16" or "float16": what the model computes in.
    calibration : Path, optional
        FASTA of sequences to calibrate on; by default 12 UniProt proteins that ship with protquant.
    cache : bool
        Whether to prepare a quantized checkpoint in the cache folder, and to load it from there (`prepare`); otherwise
        the model is quantized in memory.
    plots : bool
        Whether to draw pLDDT and PAE.
    overwrite : bool
        Fold again what is done.
    even_so : bool
        Whether the demo model, quantized or not, folds sequences that it has not memorized, with a warning that the
        result means nothing, and any model what reads as DNA or RNA; otherwise these records are among the failures.
    shard : str, optional
        Fold only a part of the records, such as the third of 16 by "3/16": every sixteenth batch, the batches sorted by
        length. Shards write to one folder at once; `merge_shards` makes one manifest and one table of theirs.
    workers : int
        Processes that fold batches at once, each on its share of the threads; they share the weights. Last bits may
        depend on the number of threads of each. On Linux, without a GPU.
    skip_output : sequence of str
        Files that are not written: any of "cif", "pdb", "pae", "plots" of the layout protquant, "pdb", "scores", "pae",
        "plots", "done" of colabfold, "pdb", "scores", "pae" of nf-core. The row of the table is always there.
    layout : str
        Whose names and files targets get: "protquant", "colabfold" or "nf-core" (docs/layouts.md). A target that is
        done in another layout is folded again, and the files of the other layout stay.
    on_batch : callable, optional
        Called with what became of the records of each batch, when it is recorded.
    b_factor : str
        What the B-factors of structure files are: "plddt", or "error", the expected error of each atom
        (`with_expected_error`). The files say which.
    pae_in_cif : int
        The most residues of a target whose predicted aligned error goes into its mmCIF file, too; 0 for none. Its size
        grows with the square of the length: 5.7 MB for 400 residues.

    Raises
    ------
    ProtquantError
        If the input, the model, the recipe or the folder cannot be used at all, another process writes to the folder,
        or nothing more can be written. A record that cannot be folded is no such error: it is among the failures.
    """
    check_folding_options(num_recycles, chunk_size, recycle_tolerance)
    device, float_type = pick_device(cpu_only), parse_dtype(dtype)
    limit = None if max_memory is None else parse_bytes(max_memory)
    recipe, saved = choose_recipe(model, quant)
    running = Execution(recipe, execution, backend, device)
    sequences = calibration_sequences(calibration)
    records = fasta if isinstance(fasta, Fasta) else read_fasta(fasta, nucleotides=even_so)
    holding = Contents(b_factor, pae_in_cif, pae_beside="pae" not in skip_output)
    files = layout_of(layout, model, holding).without(skip_output, plots=plots)
    part = None if shard is None else Shard.parse(shard)
    label = "" if part is None else part.label
    records, batches, partition = _share(records, 0 if recycle_tolerance else max_tokens_per_batch, part)
    prepare_folder(output)
    with only_writer(output, label), threads_for(workers, device) as threads:
        check_shards(output, part, partition)
        run = FoldRun.begin(output, records, label)
        manifest = Manifest.load(output, label)
        if part is not None:
            manifest.begin(partition)

        skeleton = folding_skeleton(model)
        room = partial(memory_budget, skeleton, device=device, dtype=float_type, max_memory=limit)
        budget = room(recipe, running)
        budget.check_weights(f"{model} by {recipe.name}")
        known = [] if overwrite else [name for name, entry in manifest.entries.items() if entry.status == "done"]
        reasons = _nothing_fits(records, budget, chunk_size)
        if reasons and not any(record.name in known for record in records.records):
            for record, reason in zip(records.records, reasons, strict=True):
                run.fail(records, record, reason)
            return run.finish(records, manifest)

        prepared = None
        if cache and saved is None and not is_float(recipe):
            in_main = limit if device.type == "cpu" else None
            if workers > 1:
                in_another_process(
                    prepare, model, recipe, sequences, folding=True, max_memory=in_main, cpu_only=cpu_only
                )
            prepared = prepare(model, recipe, sequences, folding=True, max_memory=in_main, cpu_only=cpu_only)
            saved = None if prepared is None else scheme_of(prepared)
        if saved is None and not is_float(recipe):
            room(load_recipe("fp32"), None).check_weights(f"{model}, which is quantized in memory,")
        network = check_folding_model(load(prepared or model, dtype=float_type, device=device))
        # A checkpoint that is quantized brings its ranges along.
        calibrates = saved is None and needs_sequences(network, recipe)
        run.settings = {
            "model": model,
            "model_fingerprint": network.fingerprint,
            "recipe": {key: value for key, value in recipe.to_dict().items() if key != "execution"},
            **running.settings(),
            "num_recycles": network.config.trunk.max_recycles - 1 if num_recycles is None else num_recycles,
            # Not told where it is 0, as targets that were done before there was one stay done.
            **({"recycle_tolerance": recycle_tolerance} if recycle_tolerance else {}),
            "dtype": dtype,
            "calibration": fingerprint({"sequences": sequences}) if calibrates else None,
        }
        log_event("settings", **run.settings)
        prints = _fingerprints(run, records, files, integer=running.integer)
        askable = _answerable(None if even_so else network, records, run, files, manifest.owners())
        pending = _pending(run, askable, manifest, prints, files, overwrite=overwrite)
        files.note_left_out(pending)
        if pending:
            manifest.reopen()
            network = _running(network, recipe, saved, sequences if calibrates else [], running)
            batches = _only(pending, batches)
            count = min(workers, len(batches))
            budget = MemoryBudget.of(network, limit).share(count, bytes_to_come(network))
            what = {"model": model, "recipe": recipe.name, "dtype": dtype}
            recycling = (num_recycles, recycle_tolerance)
            job = FoldJob(network, running, output, files, what, *recycling, chunk_size, budget)
            tell = Progress(f"fold {records.path.name}")
            tell("proteins", "protein", 0, len(pending))
            if count == 1:
                with tell.during(network):
                    record_all(map(job, batches), run, records, manifest, prints, tell, len(pending), on_batch)
            else:
                with closing(each_by_workers(job, batches, count, max(1, threads // count))) as finished:
                    record_all(finished, run, records, manifest, prints, tell, len(pending), on_batch)
            run.gpu_peak_bytes = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        files.finish(output)
        return run.finish(records, manifest)


def _running(
    network: ESMFold, recipe: Recipe, saved: Scheme | None, sequences: Sequence[str], running: Execution
) -> ESMFold:
    """The model as it is to run: quantized, unless it is saved so, and on what `running` says."""
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
    """Return a fingerprint of all that a prediction and its files depend on, by name of record."""
    # The model by its weights: it may be called by several names. Simulations have one kind of kernel.
    told = {"model"} if integer else {"model", "execution", "kernels"}
    decisive = {name: value for name, value in run.settings.items() if name not in told} | {"layout": _CONTENT}
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
    """The records that are to be folded; the others are done already."""
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
    """The records of a shard, in batches, and a fingerprint of all batches, which is that of every shard."""
    batches = _batches(records.records, max_tokens)
    partition = fingerprint({"batches": [[record.name for record in batch] for batch in batches]})
    if part is None:
        return records, batches, partition
    batches = part.take(batches)
    own = {record.name for batch in batches for record in batch}
    kept = [record for record in records.records if record.name in own]
    return replace(records, records=kept), batches, partition


def _batches(records: Sequence[Record], max_tokens: int) -> list[list[Record]]:
    """Records that are folded together, shortest first, whether they are done or not.

    What is folded together changes the last bits of what comes out, and neither an interruption nor shards are to be
    seen in that.
    """
    indices = length_batches([record.sequence for record in records], max_tokens)
    return [[records[index] for index in batch] for batch in indices]


def _only(pending: Sequence[Record], batches: Sequence[list[Record]]) -> list[list[Record]]:
    """What is pending of each batch."""
    wanted = {record.name for record in pending}
    left = [[record for record in batch if record.name in wanted] for batch in batches]
    return [batch for batch in left if batch]


def _answerable(
    demo: ESMFold | None, records: Fasta, run: FoldRun, files: Layout, owners: Mapping[str, str]
) -> list[Record]:
    """The records that can be asked for; the others become failures of the run.

    `demo` is the model, unless it is to answer whatever it is asked.
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
    """Why each record does not fit in memory; empty where any does."""
    reasons = []
    for record in records.records:
        try:
            budget.plan(model_length(record.sequence), 1, chunk_size)
        except ProtquantError as error:
            reasons.append(str(error))
        else:
            return []
    return reasons
