"""Files of predictions: a layout defines their kinds, names and writers."""

import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import yaml

from protquant.errors import ProtquantError, suggestion
from protquant.files import atomic_write
from protquant.predicting.file_contents import Contents
from protquant.predicting.plots import plot_pae, plot_plddt, plot_prediction
from protquant.proteins import (
    PDBLimitError,
    Prediction,
    Record,
    safe_name,
    write_colabfold_pae,
    write_colabfold_scores,
    write_iptm_table,
    write_mmcif,
    write_pae,
    write_pae_table,
    write_pdb,
    write_plddt_table,
    write_ptm_table,
)
from protquant.reporting.progress import note

__all__ = ["LAYOUTS", "Layout", "TargetFile", "layout_of"]

_STRUCTURES = ("cif", "pdb")
_PDB_RESIDUES, _PDB_CHAINS = 7_000, 62
"""With at most this many residues and chains a prediction has at most 99,999 atoms, and fits the columns of PDB."""


@dataclass(frozen=True)
class TargetFile:
    """A file of each target.

    Attributes
    ----------
    kind : str
        Kind of file, a value of `--skip-output`.
    ending : str
        End of the file's name, after the name of the target. No ending in a layout is the end of another one, so that
        targets of different names never share a file.
    write : callable
        Writes the file of a prediction to a path, and returns the path, or None if the prediction has no such file.
    expected : callable
        Returns whether a record must have this file to be done.
    """

    kind: str
    ending: str
    write: Callable[[Prediction, Path], Path | None]
    expected: Callable[[Record], bool] = lambda _: True


@dataclass(frozen=True)
class Layout:
    """The files of each target, and further files of the folder.

    Attributes
    ----------
    name : str
    files : sequence of TargetFile
        Files in the order of writing.
    contents : Contents
        Options for the content of files.
    of_folder : callable, optional
        Writes further files of the folder at the end of a run.
    """

    name: str
    files: Sequence[TargetFile]
    contents: Contents
    of_folder: Callable[[Path], Path] | None = None

    def without(self, skipped: Collection[str], *, plots: bool = True) -> "Layout":
        """Return the layout without the kinds `skipped`, and without figures if `plots` is False.

        Raises
        ------
        ProtquantError
            If the layout does not have a kind.
        """
        kinds = list(dict.fromkeys(file.kind for file in self.files))
        for kind in skipped:
            if kind not in kinds:
                where = "" if self.name == "protquant" else f" to the layout {self.name}"
                raise ProtquantError(f"--skip-output {kind}: not known{where}; {suggestion(kind, kinds)}")
        unwanted = {*skipped} if plots else {*skipped, "plots"}
        return replace(self, files=[file for file in self.files if file.kind not in unwanted])

    def is_complete(self, record: Record, files: Collection[str]) -> bool:
        """Return whether `files` contains all files that a record must have."""
        return all(f"{record.name}{file.ending}" in files for file in self.files if file.expected(record))

    def check_owned(self, record: Record, owners: Mapping[str, str]) -> None:
        """Raise an error if a file of a record belongs to another target, whose name contains an ending of this layout.

        Parameters
        ----------
        owners : mapping of str to str
            Name of the target of each file in the folder.

        Raises
        ------
        ProtquantError
            If there is such a file.
        """
        for file in self.files:
            path = f"{record.name}{file.ending}"
            if (owner := owners.get(path, record.name)) != record.name:
                raise ProtquantError(
                    f"its file {path} would take the place of that of the target {owner}, which is in this folder, too;"
                    " rename one of the two, or name another folder"
                )

    def note_left_out(self, records: Collection[Record]) -> None:
        """Print how many records are too long to have their predicted aligned error in the mmCIF file."""
        most = self.contents.pae_in_cif
        count = sum(record.length > most for record in records)
        if count and most and self._has("cif"):
            where = "in the _pae.json file only" if self._has("pae") else "in no file"
            note(
                f"the predicted aligned error of {count} of the {len(records)} targets to be done is {where}: they have"
                f" more than {most} residues (--pae-in-cif)"
            )

    def write(self, prediction: Prediction, folder: Path) -> list[Path]:
        """Write the files of a prediction.

        Raises
        ------
        ProtquantError
            If a file cannot be written, or the prediction has no valid content for it.
        """
        shown = self.contents.in_structures(prediction)
        for file in self.files:
            if file.kind == "done":  # from an earlier run
                (folder / f"{prediction.name}{file.ending}").unlink(missing_ok=True)
        written = [
            file.write(shown if file.kind in _STRUCTURES else prediction, folder / f"{prediction.name}{file.ending}")
            for file in self.files
        ]
        return [path for path in written if path is not None]

    def finish(self, folder: Path) -> None:
        """Write further files of the folder.

        Raises
        ------
        ProtquantError
            If a file cannot be written.
        """
        if self.of_folder is not None:
            self.of_folder(folder)

    def _has(self, kind: str) -> bool:
        return any(file.kind == kind for file in self.files)


def layout_of(name: str, model: str, contents: Contents | None = None) -> Layout:
    """Return a layout by its name.

    Parameters
    ----------
    model : str
        Name, folder or file of the model, for names of files.
    contents : Contents, optional
        What was chosen of what the files hold.

    Raises
    ------
    ProtquantError
        If there is no such layout.
    """
    if name not in LAYOUTS:
        raise ProtquantError(f"--layout {name}: not known; {suggestion(name, LAYOUTS)}")
    path = Path(model).resolve()
    stem = path.stem if path.is_file() else path.name if path.is_dir() else model
    return LAYOUTS[name](stem, contents or Contents())


def _protquant(_model: str, contents: Contents) -> Layout:
    def cif(prediction: Prediction, path: Path) -> Path:
        pae_file = f"{prediction.name}_pae.json" if contents.pae_beside else ""
        return write_mmcif(prediction, path, pae_residues=contents.pae_in_cif, pae_file=pae_file)

    files = [
        TargetFile("cif", ".cif", cif),
        TargetFile("pdb", ".pdb", _pdb_where_it_fits, _fits_pdb),
        TargetFile("pae", "_pae.json", write_pae),
        TargetFile("plots", ".png", plot_prediction),
    ]
    return Layout("protquant", files, contents)


def _colabfold(model: str, contents: Contents) -> Layout:
    """Return ColabFold's files for a run of one model without relaxation, in its order of writing."""
    tag = f"rank_001_{safe_name(model)}_model_1_seed_000"
    files = [
        TargetFile("pdb", f"_unrelaxed_{tag}.pdb", _pdb),
        TargetFile("scores", f"_scores_{tag}.json", write_colabfold_scores),
        TargetFile("pae", "_predicted_aligned_error_v1.json", write_colabfold_pae),
        TargetFile("plots", "_pae.png", plot_pae),
        TargetFile("plots", "_plddt.png", plot_plddt),
        TargetFile("done", ".done.txt", lambda _, path: atomic_write(path, "")),
    ]
    return Layout("colabfold", files, contents)


def _nf_core(_model: str, contents: Contents) -> Layout:
    """Return the files of the module RUN_ESMFOLD of nf-core/proteinfold, with the tables of its other modules.

    The pLDDT table has both of its names: `_plddt.tsv` of release 2.0, and `_plddt_mqc.tsv` of other releases.
    """
    files = [
        TargetFile("pdb", "_esmfold.pdb", _pdb),
        TargetFile("scores", "_plddt.tsv", write_plddt_table),
        TargetFile("scores", "_plddt_mqc.tsv", write_plddt_table),
        TargetFile("scores", "_ptm.tsv", write_ptm_table),
        TargetFile("scores", "_iptm.tsv", write_iptm_table, lambda _: False),
        TargetFile("pae", "_0_pae.tsv", write_pae_table),
    ]
    return Layout("nf-core", files, contents, _versions)


LAYOUTS = {"protquant": _protquant, "colabfold": _colabfold, "nf-core": _nf_core}
"""Functions that make a layout for a model, by name."""


def _fits_pdb(record: Record) -> bool:
    return record.length <= _PDB_RESIDUES and len(record.chains) <= _PDB_CHAINS


def _pdb_where_it_fits(prediction: Prediction, path: Path) -> Path | None:
    """Write PDB, or print a note if the prediction is too large: this layout also has mmCIF."""
    try:
        return write_pdb(prediction.atoms, path, prediction.remarks())
    except PDBLimitError as error:
        note(f"{prediction.name}: no .pdb is written: {error}")
        return None


def _pdb(prediction: Prediction, path: Path) -> Path:
    """Write PDB, the only structure file of a layout."""
    try:
        return write_pdb(prediction.atoms, path, prediction.remarks())
    except PDBLimitError as error:
        raise PDBLimitError(f"{error} Only the layout protquant has mmCIF.") from error


def _versions(folder: Path) -> Path:
    """Write `versions.yml`: the versions of the programs, under the name of a process, as in nf-core."""
    programs = {"protquant": "protquant", "pytorch": "torch", "numpy": "numpy"}
    versions = {name: version(distribution) for name, distribution in programs.items()}
    process = {"PROTQUANT_FOLD": {**versions, "python": platform.python_version()}}
    return atomic_write(folder / "versions.yml", yaml.safe_dump(process, sort_keys=False))
