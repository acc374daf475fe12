"""Score one structure file against another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biotite.structure import AtomArray

from protquant.errors import ProtquantError
from protquant.options import ScoreOptions, takes
from protquant.proteins import check_atom_file, write_atoms
from protquant.reporting.progress import note
from protquant.scores import Comparison, compare_structures, gdt_ts, tm_score
from protquant.structures import Reference, load_structure

__all__ = ["score"]


@takes(ScoreOptions)
def score(options: ScoreOptions) -> dict[str, Any]:
    """Return TM-score, GDT-TS, lDDT-CA and CA-RMSD of a predicted structure; residues are matched by sequence.

    Notes on the files and on unmatched chains go to standard error.

    Returns
    -------
    dict
        `tm_score gdt_ts lddt_ca rmsd_ca n_aligned reference_length full_length tm_score_full gdt_ts_full chains
        unmatched_chains unmatched_reference_chains`; `full...` are None if the file has no sequence.

    Raises
    ------
    ProtquantError
        If a file cannot be read, a chain is not there, the sequences cannot be aligned, or `superposed` cannot be
        written.
    """
    if options.superposed is not None:
        _check_superposed(options.superposed, options.prediction, options.reference)
    predicted, referred = _read(options.prediction, options.chains), _read(options.reference, options.reference_chains)
    found = compare_structures(predicted, referred)
    for path, which, counted, option in (
        (options.prediction, found.unmatched, "", "--chain"),
        (
            options.reference,
            found.unmatched_in_reference,
            ", and its residues count as not predicted",
            "--reference-chain",
        ),
    ):
        if which:
            note(f"{path}: not matched: chain {', '.join(map(_shown, which))}{counted}; {option} chooses chains")
    if options.superposed is not None:
        _write_moved(options.superposed, predicted.atoms, found, referred)
    return {
        **found.scores.to_dict(),
        **_by_full_length(found, referred),
        "chains": [list(pair) for pair in found.chains],
        "unmatched_chains": list(found.unmatched),
        "unmatched_reference_chains": list(found.unmatched_in_reference),
    }


def _read(path: Path, chains: Sequence[str]) -> Reference:
    structure = load_structure(path)
    for each in structure.notes:
        note(f"{path}: {each}")
    return structure.of_chains(chains) if chains else structure


def _shown(chain: str) -> str:
    return chain or "(blank)"


def _by_full_length(found: Comparison, reference: Reference) -> dict[str, float | int | None]:
    length = reference.full_length
    if length is None or length < found.scores.n_aligned:
        return {"full_length": None, "tm_score_full": None, "gdt_ts_full": None}
    return {
        "full_length": length,
        "tm_score_full": tm_score(found.ca, reference.ca, length).score,
        "gdt_ts_full": gdt_ts(found.ca, reference.ca, length),
    }


def _check_superposed(path: Path, *inputs: Path) -> None:
    if any(path.exists() and each.exists() and path.samefile(each) for each in inputs):
        raise ProtquantError(f"{path}: is one of the two structures; give --superposed another file")
    check_atom_file(path)


def _write_moved(path: Path, atoms: AtomArray, found: Comparison, reference: Reference) -> None:
    moved = atoms.copy()
    moved.coord = found.superposition.apply(atoms.coord.astype(float)).astype("float32")
    write_atoms(moved, path, [f"superposed on {reference.name}: TM-score {found.scores.tm_score:.4f}"])
