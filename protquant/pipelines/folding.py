"""Sequences to predictions."""

from collections.abc import Sequence

import numpy as np
import torch

from protquant.errors import ProtquantError
from protquant.models import ESMFold, encode_complexes
from protquant.proteins import Prediction, atoms_from_atom37, clean_sequence

__all__ = ["fold", "fold_batch"]

_CA = 1  # of the 37 atoms


def fold(
    model: ESMFold, sequence: str, *, name: str = "protein", num_recycles: int | None = None, chunk_size: int | None = None
) -> Prediction:
    """Fold one sequence; chains of a complex are joined by ':'.

    Parameters
    ----------
    model : ESMFold
        Of `load`, or quantized by `quantize`.
    num_recycles : int, optional
        How often the output goes through the trunk again; by default as the model was trained.
    chunk_size : int, optional
        Rows that triangle attention works on at a time: less memory, the same result.

    Raises
    ------
    ProtquantError
        If the sequence holds letters that are no residues, or the model is no folding model.

    Examples
    --------
    >>> fold(load("demo"), "MKTAYIAKQRQISFVK").mean_plddt  # doctest: +SKIP
    """
    cleaned, _ = clean_sequence(sequence)
    return fold_batch(model, [cleaned], [name], num_recycles=num_recycles, chunk_size=chunk_size)[0]


def fold_batch(
    model: ESMFold,
    sequences: Sequence[str],
    names: Sequence[str],
    headers: Sequence[str] | None = None,
    *,
    num_recycles: int | None = None,
    chunk_size: int | None = None,
) -> list[Prediction]:
    """Fold sequences (cleaned, as `read_fasta` gives them) together, padded to the longest.

    Raises
    ------
    ProtquantError
        If the model is no folding model, or what it predicts is not finite.
    """
    if not isinstance(model, ESMFold):
        raise ProtquantError(f"{getattr(model, 'source', 'this model')} is a language model; folding needs an ESMFold")
    if num_recycles is None:
        num_recycles = model.config.trunk.max_recycles - 1
    batch = encode_complexes(sequences).to(model.device)
    with torch.inference_mode():
        output = model(batch, num_recycles=num_recycles, chunk_size=chunk_size)
    predictions = []
    for row, (sequence, name) in enumerate(zip(sequences, names, strict=True)):
        residues = batch.chain_index[row] >= 0
        positions = output.positions[row, residues].float().cpu().numpy()
        if not np.isfinite(positions).all():
            raise ProtquantError(f"{name}: the predicted coordinates are not finite; fold it with --dtype float32")
        plddt = output.plddt[row, residues].float().cpu().numpy()
        mask = output.atom_mask[row, residues].cpu().numpy()
        predictions.append(
            Prediction(
                name=name,
                header=name if headers is None else headers[row],
                sequence=sequence,
                atoms=atoms_from_atom37(positions, mask, sequence, plddt),
                plddt=plddt[:, _CA],
                pae=output.pae[row][residues][:, residues].float().cpu().numpy(),
                ptm=float(output.ptm[row]),
                recycles=num_recycles,
            )
        )
    return predictions
