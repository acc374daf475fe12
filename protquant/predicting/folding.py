"""Fold sequences in memory."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from protquant.demo.memorized import folding_warnings, refuse_unknown
from protquant.errors import ProtquantError
from protquant.models import ESMFold, encode_complexes
from protquant.models.confidence import predicted_interface_tm
from protquant.predicting.recycling import PassWatch, check_tolerance, not_finite
from protquant.proteins import Prediction, Provenance, atoms_from_atom37, clean_sequence, refuse_nucleotides
from protquant.quant.memory import release_freed
from protquant.running.batches import model_length
from protquant.running.memory import MemoryBudget, is_out_of_memory, parse_bytes
from protquant.scores import measure_geometry

__all__ = [
    "check_folding_model",
    "check_folding_options",
    "fold",
    "fold_batch",
    "fold_within_memory",
    "provenance_of",
]

log = logging.getLogger(__name__)

_CA = 1  # of the 37 atoms


def fold(
    model: ESMFold,
    sequence: str,
    *,
    name: str = "protein",
    num_recycles: int | None = None,
    recycle_tolerance: float = 0.0,
    chunk_size: int | None = None,
    max_memory: int | str | None = None,
    even_so: bool = False,
) -> Prediction:
    """Fold one sequence; the chains of a complex are separated by ':'.

    Warnings of the prediction are also logged.

    Parameters
    ----------
    model : ESMFold
        Model from `load` or `quantize`.
    num_recycles : int, optional
        Number of recycles; by default as in training.
    recycle_tolerance : float
        In angstrom: recycling ends early if the root mean square change of the distances between C-alpha atoms since
        the last pass is smaller (`--recycle-early-stop-tolerance` of ColabFold). 0: all recycles are done.
    chunk_size : int, optional
        Number of rows that float blocks of the trunk process at a time; by default the most that fit. Smaller chunks
        take less memory and give the same result.
    max_memory : int or str, optional
        Maximal memory of the process, in bytes or as text such as "12GiB"; by default the free memory.
    even_so : bool
        Whether to let the demo model fold a sequence that it has not memorized (with a warning that the result is
        meaningless), and any model a sequence that looks like DNA or RNA.

    Raises
    ------
    ProtquantError
        If the sequence has letters that are not residues, does not fit in memory or was not memorized by the demo
        model, or if the model is not a folding model.

    Examples
    --------
    >>> fold(load("demo"), load_references(limit=1)[0].sequence).mean_plddt  # doctest: +SKIP
    """
    cleaned, _ = clean_sequence(sequence)
    if not even_so:
        refuse_nucleotides(sequence)
        refuse_unknown(check_folding_model(model), cleaned)
    limit = None if max_memory is None else parse_bytes(max_memory)
    (prediction,) = fold_within_memory(
        model,
        [cleaned],
        [name],
        num_recycles=num_recycles,
        recycle_tolerance=recycle_tolerance,
        chunk_size=chunk_size,
        budget=MemoryBudget.of(check_folding_model(model), limit),
    )
    for warning in prediction.warnings:
        log.warning("%s: %s", name, warning)
    return prediction


def check_folding_options(num_recycles: int | None, chunk_size: int | None, recycle_tolerance: float = 0.0) -> None:
    """Raise an error for invalid options, before anything is loaded or computed.

    Raises
    ------
    ProtquantError
        If the number of recycles or the tolerance is negative, or a chunk has less than 1 row.
    """
    check_tolerance(recycle_tolerance)
    if num_recycles is not None and num_recycles < 0:
        raise ProtquantError(f"the number of recycles is {num_recycles}; give 0 or more")
    if chunk_size is not None and chunk_size < 1:
        raise ProtquantError(f"the chunk size is {chunk_size}; give 1 or more, or leave it out to have it chosen")


def fold_within_memory(
    model: ESMFold,
    sequences: Sequence[str],
    names: Sequence[str],
    headers: Sequence[str] | None = None,
    *,
    num_recycles: int | None = None,
    recycle_tolerance: float = 0.0,
    chunk_size: int | None = None,
    budget: MemoryBudget | None = None,
) -> list[Prediction]:
    """Call `fold_batch` with chunks that fit in memory; they are halved if memory runs out nevertheless.

    Parameters
    ----------
    budget : MemoryBudget, optional
        Memory budget, computed before the model folds; by default from the memory that is free now.

    Raises
    ------
    ProtquantError
        If the batch does not fit in memory; see `fold_batch` for more.
    """
    check_folding_model(model)
    check_folding_options(num_recycles, chunk_size, recycle_tolerance)
    release_freed()  # Otherwise holes that earlier batches left in the heap would add to the memory of this batch.
    longest = max(map(model_length, sequences))
    budget = MemoryBudget.of(model) if budget is None else budget.now()
    plan = budget.plan(longest, len(sequences), chunk_size)
    rows = plan.chunk_size
    while True:
        try:
            return fold_batch(
                model,
                sequences,
                names,
                headers,
                num_recycles=num_recycles,
                recycle_tolerance=recycle_tolerance,
                chunk_size=rows,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            tried = rows or plan.length
            asked = chunk_size is not None and budget.setup.has_chunks
            if tried == 1 or asked or not budget.setup.has_chunks:
                remedy = "leave --chunk-size out" if asked else "use a machine with more"
                raise ProtquantError(
                    f"{plan.batch} x {plan.length} residues ran out of memory in chunks of {tried}; {remedy}"
                ) from error
        # Outside of the except clause, where the error would keep the tensors of the failed attempt alive.
        rows = tried // 2
        log.warning("%d x %d residues ran out of memory; trying chunks of %d", plan.batch, plan.length, rows)


def fold_batch(
    model: ESMFold,
    sequences: Sequence[str],
    names: Sequence[str],
    headers: Sequence[str] | None = None,
    *,
    num_recycles: int | None = None,
    recycle_tolerance: float = 0.0,
    chunk_size: int | None = None,
) -> list[Prediction]:
    """Fold sequences (cleaned, as from `read_fasta`) together, padded to the longest.

    Raises
    ------
    ProtquantError
        If the model is not a folding model, numbers are not finite, or a `recycle_tolerance` is given for more than one
        sequence.
    """
    check_folding_model(model)
    check_folding_options(num_recycles, chunk_size, recycle_tolerance)
    if num_recycles is None:
        num_recycles = model.config.trunk.max_recycles - 1
    batch = encode_complexes(sequences).to(model.device)
    watch = PassWatch(model, batch, names, recycle_tolerance)
    # Not inference_mode: transformers caches constants at first use, and autograd could not use them later.
    with torch.no_grad():
        output = model(batch, num_recycles=num_recycles, chunk_size=chunk_size, after_pass=watch)
    predictions, provenance = [], provenance_of(model)
    for row, (sequence, name) in enumerate(zip(sequences, names, strict=True)):
        residues = batch.chain_index[row] >= 0
        positions = output.positions[row, residues].float().cpu().numpy()
        pae, ptm = output.pae[row][residues][:, residues].float().cpu().numpy(), float(output.ptm[row])
        if not np.isfinite(pae).all() or not math.isfinite(ptm):
            raise not_finite(model, name, "the predicted aligned error is")
        iptm, pairs = _interface_tm(output.pae_logits[row], batch.chain_index[row])
        plddt = output.plddt[row, residues].float().cpu().numpy()
        mask = output.atom_mask[row, residues].cpu().numpy()
        atoms = atoms_from_atom37(positions, mask, sequence, plddt)
        geometry = measure_geometry(atoms)
        predictions.append(
            Prediction(
                name=name,
                header=name if headers is None else headers[row],
                sequence=sequence,
                atoms=atoms,
                plddt=plddt[:, _CA],
                pae=pae,
                ptm=ptm,
                iptm=iptm,
                chain_pair_iptm=pairs,
                recycles=watch.recycles,
                provenance=provenance,
                geometry=geometry.row(),
                warnings=(*folding_warnings(model, sequence), *geometry.warnings()),
            )
        )
    return predictions


def _interface_tm(logits: torch.Tensor, chain_index: torch.Tensor) -> tuple[float, NDArray[np.floating] | None]:
    """Return ipTM of a complex and of its pairs of chains; NaN and None for a single chain."""
    if int(chain_index.max()) == 0:
        return math.nan, None
    whole, pairs = predicted_interface_tm(logits, chain_index)
    return float(whole), pairs.cpu().numpy()


def provenance_of(model: ESMFold) -> Provenance:
    """Return the provenance of this model's predictions, with only the last part of a path."""
    lineage = model.lineage
    return Provenance(
        model=Path(model.source).name if Path(model.source).exists() else model.source,
        fingerprint=model.fingerprint,
        float_fingerprint=lineage.float_fingerprint,
        recipe=lineage.recipe,
        recipe_fingerprint=lineage.recipe_fingerprint,
        execution=lineage.execution,
        kernels=lineage.kernels,
        dtype=str(model.layer_mix.dtype).removeprefix("torch."),
    )


def check_folding_model(model: object) -> ESMFold:
    """Return the model if it is a folding model.

    Raises
    ------
    ProtquantError
        If it is another model.
    """
    if not isinstance(model, ESMFold):
        raise ProtquantError(f"{getattr(model, 'source', '') or 'this'} is a language model; folding needs an ESMFold")
    return model
