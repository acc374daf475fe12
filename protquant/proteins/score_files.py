"""Write the scores of a prediction in the formats of ColabFold (JSON) and nf-core/proteinfold (tables)."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from biotite.structure import apply_residue_wise, get_residue_starts

from protquant.files.outputs import atomic_write
from protquant.proteins.atoms import residue_positions
from protquant.proteins.pae import checked_pae
from protquant.proteins.prediction import Prediction

__all__ = [
    "write_colabfold_pae",
    "write_colabfold_scores",
    "write_iptm_table",
    "write_pae_table",
    "write_plddt_table",
    "write_ptm_table",
]

_RANK = 0  # nf-core/proteinfold counts models from 0; there is only one


def write_colabfold_scores(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write one JSON object, like ColabFold's `_scores_rank_001_*.json`.

    `plddt` is a list of L numbers from 0 to 100; `pae` is a list of L lists of L errors in angstrom (row i: residue i
    is superimposed), and `max_pae` is the largest of them; `ptm` and, for a complex whose ipTM is known, `iptm` are
    numbers from 0 to 1. All but `max_pae` have two decimals. Without a PAE only `plddt` is written.

    Raises
    ------
    ProtquantError
        If the PAE is not finite, or the file cannot be written.
    """
    scores: dict[str, object] = {"plddt": _rounded(prediction.plddt)}
    if prediction.pae is not None:
        pae = checked_pae(prediction, path)
        scores |= {"max_pae": float(pae.max()), "pae": _rounded(pae), "ptm": round(float(prediction.ptm), 2)}
        if math.isfinite(prediction.iptm):
            scores["iptm"] = round(float(prediction.iptm), 2)
    return atomic_write(path, json.dumps(scores))


def write_colabfold_pae(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write one JSON object, like ColabFold's `_predicted_aligned_error_v1.json`.

    `predicted_aligned_error` has the errors of `pae` in `write_colabfold_scores`, and `max_predicted_aligned_error` the
    largest of them. Files of the AlphaFold database differ: a list with one object, in whole angstroms (`write_pae`).

    Raises
    ------
    ProtquantError
        If the prediction has no PAE, the PAE is not finite, or the file cannot be written.
    """
    pae = checked_pae(prediction, path)
    document = {"predicted_aligned_error": _rounded(pae), "max_predicted_aligned_error": float(pae.max())}
    return atomic_write(path, json.dumps(document))


def write_plddt_table(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write a table of pLDDT by residue: `Positions` counts from 0 through all chains, `rank_0` is from 0 to 100.

    As in nf-core/proteinfold, the value of a residue is the mean over its atoms in the PDB file. A residue without
    atoms (X) is counted in the positions but has no row.

    Raises
    ------
    ValueError
        If the B-factors are not pLDDT, but errors from `with_expected_error`.
    ProtquantError
        If the file cannot be written.
    """
    if prediction.b_factor != "plddt":
        raise ValueError(f"{prediction.name}: the B-factors are not pLDDT")
    atoms = prediction.atoms
    means = apply_residue_wise(atoms, np.round(np.asarray(atoms.b_factor, dtype=float), 2), np.mean)
    positions = residue_positions(prediction.chains, atoms[get_residue_starts(atoms)]).tolist()
    rows = ((str(position), f"{value:.2f}") for position, value in zip(positions, means, strict=True))
    return _write_rows([("Positions", f"rank_{_RANK}"), *rows], path)


def write_pae_table(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write L rows of L predicted aligned errors in angstrom, without a header (row i: residue i is superimposed).

    Raises
    ------
    ProtquantError
        If the prediction has no PAE, the PAE is not finite, or the file cannot be written.
    """
    return _write_rows(([f"{error:.4f}" for error in row] for row in checked_pae(prediction, path).tolist()), path)


def write_ptm_table(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write one row without a header: the rank, 0, and the predicted TM-score, from 0 to 1.

    Raises
    ------
    ProtquantError
        If the file cannot be written.
    """
    return _write_rows([(str(_RANK), f"{prediction.ptm:.3f}")], path)


def write_iptm_table(prediction: Prediction, path: str | os.PathLike[str]) -> Path | None:
    """Write the ipTM of a complex in one row, as in `write_ptm_table`; write no file if the ipTM is not known.

    Raises
    ------
    ProtquantError
        If the file cannot be written.
    """
    known = math.isfinite(prediction.iptm)
    return _write_rows([(str(_RANK), f"{prediction.iptm:.3f}")], path) if known else None


def _rounded(values: np.ndarray) -> list[object]:
    """Round to two decimals, in double precision, so that JSON shows no further digits."""
    return np.round(values.astype(float), 2).tolist()


def _write_rows(rows: Iterable[Iterable[str]], path: str | os.PathLike[str]) -> Path:
    return atomic_write(path, "".join("\t".join(row) + "\n" for row in rows))
