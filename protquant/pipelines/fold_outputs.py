"""The files of a prediction: which there are, which are wanted, and whether they are there."""

from collections.abc import Collection, Sequence
from pathlib import Path

from protquant.errors import ProtquantError, suggestion
from protquant.pipelines.plots import plot_prediction
from protquant.pipelines.progress import note
from protquant.proteins import PDBLimitError, Prediction, Record, write_mmcif, write_pae, write_pdb

__all__ = ["OUTPUTS", "has_outputs", "wanted_outputs", "write_outputs"]

OUTPUTS = {"cif": ".cif", "pdb": ".pdb", "pae": "_pae.json", "plots": ".png"}
"""What is written of each target, and how the names of the files end."""

_PDB_RESIDUES, _PDB_CHAINS = 7_000, 62
"""Up to so many a prediction has at most 99,999 atoms, and certainly fits the columns of PDB."""


def wanted_outputs(skipped: Collection[str], *, plots: bool = True) -> list[str]:
    """Names in `OUTPUTS` without those that are skipped.

    Raises
    ------
    ProtquantError
        If one is not known.
    """
    for name in skipped:
        if name not in OUTPUTS:
            raise ProtquantError(f"--skip-output {name}: not known; {suggestion(name, OUTPUTS)}")
    return [name for name in OUTPUTS if name not in skipped and (plots or name != "plots")]


def has_outputs(record: Record, files: Collection[str], wanted: Sequence[str]) -> bool:
    """Whether all files that are wanted were written; a PDB file only of what fits its columns."""
    fits = record.length <= _PDB_RESIDUES and len(record.chains) <= _PDB_CHAINS
    needed = [name for name in wanted if name != "pdb" or fits]
    return all(f"{record.name}{OUTPUTS[name]}" in files for name in needed)


def write_outputs(prediction: Prediction, output: Path, wanted: Sequence[str]) -> list[Path]:
    """Write the files of a prediction.

    Returns
    -------
    list of Path
        Without a PDB file where the prediction does not fit that format; then a note says so.

    Raises
    ------
    ProtquantError
        If one cannot be written, or there is nothing that makes sense.
    """
    paths = {name: output / f"{prediction.name}{suffix}" for name, suffix in OUTPUTS.items()}
    files = []
    if "cif" in wanted:
        files.append(write_mmcif(prediction, paths["cif"]))
    if "pdb" in wanted:
        try:
            files.append(write_pdb(prediction.atoms, paths["pdb"], prediction.remarks()))
        except PDBLimitError as error:
            note(f"{prediction.name}: no .pdb is written: {error}")
    if "pae" in wanted:
        files.append(write_pae(prediction, paths["pae"]))
    if "plots" in wanted:
        files.append(plot_prediction(prediction, paths["plots"]))
    return files
