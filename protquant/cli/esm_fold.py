"""`protquant-esm-fold`: the command line of fair-esm's `esm-fold`, for scripts and pipelines that call it.

It has the flags of `esm-fold`, and prints the same lines on standard output; docs/layouts.md lists the differences.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from protquant import predicting
from protquant.cli.app import BAD_INPUT, SOME_FAILED
from protquant.errors import ProtquantError
from protquant.proteins import Fasta, header_names, read_fasta

if TYPE_CHECKING:
    from protquant.predicting.fold_job import Kept

__all__ = ["main", "model_in"]

_RELEASED = "esmfold_v1"
_CHECKPOINT = Path("checkpoints", "esmfold_3B_v1.pt")
"""Path of the model within the folder of torch's hub."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fold a FASTA file as `esm-fold` does.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments; by default those of the command line.

    Returns
    -------
    int
        Exit code: 0, 1 if some records failed, or 2 if nothing could be done.
    """
    given = _parser().parse_args(arguments)
    try:
        return _fold(given)
    except ProtquantError as error:
        sys.stderr.write(f"protquant: {error}\n")
        return BAD_INPUT


def model_in(folder: Path | None) -> str:
    """Return the model that `esm-fold --model-dir` names: a file of torch's hub, or a checkpoint folder.

    Parameters
    ----------
    folder : Path or None
        Folder of torch's hub, with its `checkpoints`, or a folder that `protquant import` or `protquant quantize`
        wrote. None is the hub's default folder; if the model is not there, Hugging Face's released one is used.

    Raises
    ------
    ProtquantError
        If a folder is given and no model is in it.
    """
    if folder is None:
        from torch import hub  # noqa: PLC0415 (it takes seconds, which a page of help need not wait for)

        path = Path(hub.get_dir()) / _CHECKPOINT
        return str(path) if path.is_file() else _RELEASED
    if (folder / _CHECKPOINT).is_file():
        return str(folder / _CHECKPOINT)
    if (folder / "config.json").is_file():
        return str(folder)
    raise ProtquantError(
        f"--model-dir {folder}: there is no {_CHECKPOINT} in it, and it is no checkpoint folder. esm-fold would"
        " download the model to there; put the files of fair-esm there, give a folder that `protquant import` wrote, or"
        f" leave --model-dir out: {_RELEASED} is then downloaded from Hugging Face."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="protquant-esm-fold",
        description="Fold proteins with the flags of fair-esm's esm-fold. Example: protquant-esm-fold -i proteins.fasta"
        " -o structures/ --quant w8a8-int8",
    )
    add = parser.add_argument
    add("-i", "--fasta", type=Path, required=True, help="FASTA file; ':' between chains.")
    add("-o", "--pdb", type=Path, required=True, help="Folder for the structures, <header>.pdb.")
    add("-m", "--model-dir", type=Path, help="Folder in which checkpoints/esmfold_3B_v1.pt is, or a checkpoint folder.")
    add("--num-recycles", type=int, help="Number of recycles. Default: as in training.")
    add("--max-tokens-per-batch", type=int, default=1024, help="Residues to fold together; 0 folds one by one.")
    add("--chunk-size", type=int, help="Rows of the pair at a time. Default: the most that fit.")
    add("--cpu-only", action="store_true", help="Do not use a GPU.")
    add("--cpu-offload", action="store_true", help="Accepted, with a warning, and without effect.")
    own = parser.add_argument_group("flags that esm-fold does not have")
    own.add_argument("--weights", help="A model as `protquant fold --model` takes it, in place of --model-dir.")
    own.add_argument("--quant", default="fp32", help="Recipe: a name of `protquant recipes`, or a YAML file.")
    own.add_argument("--even-so", action="store_true", help="As `protquant fold --even-so`.")
    return parser


def _fold(given: argparse.Namespace) -> int:
    if given.weights is not None and given.model_dir is not None:
        raise ProtquantError("--weights and --model-dir both name a model; give one of them")
    if given.cpu_offload:
        _note("--cpu-offload has no effect: weights stay on the GPU; where they do not fit, give --quant or --cpu-only")
    _log(f"Reading sequences from {given.fasta}")
    records = read_fasta(given.fasta, nucleotides=given.even_so, naming=header_names)
    _log(f"Loaded {len(records.records) + len(records.rejected)} sequences from {given.fasta}")
    for record in records.records:
        if record.name != record.header:
            _note(f"'{record.header}': its file is '{record.name}.pdb'")
    model = given.weights or model_in(given.model_dir)
    _log("Loading model")
    _note(f"loading {model} for the recipe {given.quant}")
    lines = _Lines(records)
    _log("Starting Predictions")  # the model is loaded with the first records, when the memory for it is known
    run = predicting.fold_fasta(
        records,
        given.pdb,
        model,
        given.quant,
        num_recycles=given.num_recycles,
        max_tokens_per_batch=given.max_tokens_per_batch,
        chunk_size=given.chunk_size,
        cpu_only=given.cpu_only,
        even_so=given.even_so,
        skip_output=["cif", "pae", "plots"],
        on_batch=lines.tell,
    )
    rows = {row["name"]: row for row in run.rows}
    for name in run.skipped:
        row = rows[name]
        _log(f"{row['header']} was predicted in an earlier run, pLDDT {row['mean_plddt']:0.1f}, pTM {row['ptm']:0.3f}.")
    if run.failures:
        return SOME_FAILED if run.rows else BAD_INPUT
    return 0


class _Lines:
    """Prints the lines of `esm-fold` about its predictions, which programs read."""

    def __init__(self, records: Fasta) -> None:
        self._total = len(records.records) + len(records.rejected)
        self._completed = 0

    def tell(self, batch: Sequence["Kept"]) -> None:
        """Print the results of a batch."""
        together = f" (amortized, batch size {len(batch)})" if len(batch) > 1 else ""
        for done in batch:
            record, row = done.record, done.row
            if done.error is not None:
                _log(f"Failed on sequence {record.header} of length {record.length}: {done.error}")
                continue
            self._completed += 1
            _log(
                f"Predicted structure for {record.header} with length {record.length}, pLDDT {row['mean_plddt']:0.1f}, "
                f"pTM {row['ptm']:0.3f} in {done.seconds:0.1f}s{together}. {self._completed} / {self._total} completed."
            )


def _log(message: str) -> None:
    """Write a line like the logger of `esm-fold`; a real logger would print a traceback if the output is closed."""
    seen = "".join(each if each.isprintable() else "_" for each in message)  # headers may hold terminal codes
    sys.stdout.write(f"{time.strftime('%y/%m/%d %H:%M:%S')} | INFO | root | {seen}\n")
    sys.stdout.flush()


def _note(message: str) -> None:
    sys.stderr.write(f"protquant: {message}\n")
