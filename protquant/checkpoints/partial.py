"""A partial quantized checkpoint: a folder of finished units from which a later process can resume.

The folder is called `NAME.partial`. When all units are done, it becomes the folder `NAME`. It contains

=====================  ==============================================================================================
`job.json`             inputs of the checkpoint: model, recipe, sequences, versions
`UNIT.safetensors`     tensors of a finished unit, as in the checkpoint
`UNIT.json`            modules and report of the unit; written last, so that it marks the unit as finished
`calls/`               calls of blocks (their inputs) on the calibration sequences
=====================  ==============================================================================================
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from protquant.checkpoints.folders import SCHEME, WEIGHTS, check_new_folder, file_hash, new_folder
from protquant.checkpoints.scheme import Scheme, write_scheme
from protquant.checkpoints.stored_report import report_from_json, report_to_json
from protquant.checkpoints.stored_units import describe_unit, unit_names, write_unit
from protquant.errors import ProtquantError
from protquant.files import atomic_write, prepare_folder
from protquant.files.plain_data import parse_json, typed
from protquant.quant import Recipe, Report

__all__ = ["CallFolder", "PartialCheckpoint"]

_JOB = "job.json"


class PartialCheckpoint:
    """Units of a quantized checkpoint on disk (a `protquant.quant.stream.UnitStore`).

    Parameters
    ----------
    output : Path
        Folder of the checkpoint, new or empty unless `overwrite`.
    job : mapping
        Inputs of the checkpoint, as plain data. Units of another job are deleted.
    plan : nn.Module
        The float model on the meta device.
    sizes : dict
        Kind and config of the model, see `protquant.checkpoints.sizes`.
    device : torch.device, optional
        Device of the tensors in calls; by default the CPU.

    Attributes
    ----------
    folder : Path
    resumed : int
        Number of units that an earlier process has finished.

    Raises
    ------
    ProtquantError
        If the folder cannot be written.
    """

    def __init__(
        self,
        output: Path,
        job: Mapping[str, Any],
        recipe: Recipe,
        plan: nn.Module,
        sizes: dict[str, Any],
        overwrite: bool = False,
        device: torch.device | None = None,
    ) -> None:
        check_new_folder(output, overwrite)
        self.output, self.recipe, self.overwrite = output, recipe, overwrite
        self.folder = output.with_name(f"{output.name}.partial")
        self._plan, self._sizes = plan, sizes
        text = json.dumps(job, sort_keys=True)
        if self.folder.exists() and not _holds(self.folder / _JOB, text):
            shutil.rmtree(self.folder)
        prepare_folder(self.folder)
        atomic_write(self.folder / _JOB, text)
        self.calls = CallFolder(self.folder / "calls", device)
        self.units: list[str | None] = [None, *unit_names(plan)]
        self.resumed = sum(self._facts(unit).is_file() for unit in self.units)

    def report(self, unit: str | None) -> Report | None:
        """Return the report on a finished unit; None if the unit is not finished."""
        content = self._read(unit)
        return None if content is None else report_from_json(self.recipe, content["report"])

    def put(self, model: nn.Module, unit: str | None, report: Report) -> None:
        """Write a unit of `model`.

        Raises
        ------
        ProtquantError
            If the unit contains something that cannot be saved, or the disk is full.
        """
        temporary = self.folder / "writing"
        try:
            stored = describe_unit(model, self._plan, unit)
            temporary.mkdir(exist_ok=True)
            path = write_unit(stored, temporary)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            digest = file_hash(path)
            path.replace(self.folder / path.name)
        except ValueError as error:
            raise ProtquantError(f"{self.output}: not saved, {error}") from error
        except OSError as error:
            raise ProtquantError(
                f"{self.folder}: cannot be written ({error.strerror or type(error).__name__}); make room or name"
                " another folder. What is done stays there, and the same command goes on with it."
            ) from error
        content = {
            "sha256": digest,
            "modules": stored.modules,
            "frozen": stored.frozen,
            "report": report_to_json(report),
        }
        atomic_write(self._facts(unit), json.dumps(content))

    def finish(self, report: Report, source: str, fingerprint: str) -> Path:
        """Make the checkpoint of all finished units, and return its folder.

        Parameters
        ----------
        report : Report
            Report on the whole model.
        source, fingerprint : str
            Path or name, and fingerprint, of the float model.
        """
        contents = [self._read(unit) for unit in self.units]
        files = [WEIGHTS if unit is None else f"{unit}.safetensors" for unit in self.units]
        done = [content for content in contents if content is not None]
        scheme = Scheme(
            self._sizes,
            source,
            fingerprint,
            report,
            {path: node for content in done for path, node in content["modules"].items()},
            {name: content["sha256"] for name, content in zip(files, done, strict=True)},
            [name for content in done for name in content["frozen"]],
        )
        with new_folder(self.output, self.overwrite) as temporary:
            # Linked, not moved, so that an interruption leaves the units in place.
            for name in files:
                _link(self.folder / name, temporary / name)
            write_scheme(scheme, temporary / SCHEME)
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.output

    def _facts(self, unit: str | None) -> Path:
        return self.folder / f"{'model' if unit is None else unit}.json"

    def _read(self, unit: str | None) -> dict[str, Any] | None:
        path = self._facts(unit)
        try:
            return parse_json(path.read_bytes()) if path.is_file() else None
        except ValueError as error:
            raise ProtquantError(f"{path}: damaged ({error}); delete {self.folder} and start again.") from error


class CallFolder:
    """Calls of blocks in files, one for each block and sequence (a `protquant.quant.stream.CallStore`).

    Parameters
    ----------
    folder : Path
        Folder of the files; it is made if it does not exist.
    device : torch.device, optional
        Device to read tensors to; by default the CPU.
    """

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        self.folder = prepare_folder(folder)
        self._device = device or torch.device("cpu")

    def put(self, block: str, index: int, calls: Sequence[tuple[Any, ...]]) -> None:
        """Write the calls of a block on one sequence: tensors and plain values."""
        tensors: dict[str, Tensor] = {}
        plain: list[list[Any]] = []
        for number, call in enumerate(calls):
            plain.append([])
            for place, value in enumerate(call):
                if isinstance(value, Tensor):
                    tensors[f"{number}.{place}"] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
                plain[-1].append(None if isinstance(value, Tensor) else value)
        path = self._path(block, index)
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, metadata={"calls": json.dumps(plain)})
        temporary.replace(path)

    def get(self, block: str, index: int) -> list[tuple[Any, ...]]:
        """Return the calls of a block on one sequence.

        Raises
        ------
        ProtquantError
            If they are missing or damaged.
        """
        path = self._path(block, index)
        if not path.is_file():
            raise ProtquantError(f"{path}: no such file; delete {self.folder.parent} and start again.")
        try:
            with safe_open(path, framework="pt") as stream:
                plain = typed(list[list[Any]], parse_json(stream.metadata()["calls"]))
                # Copies have torch's memory alignment, so that sums have the same order as before.
                tensors = {name: stream.get_tensor(name).clone().to(self._device) for name in stream.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ProtquantError(f"{path}: damaged ({error}); delete {self.folder.parent} and start again.") from error
        return [
            tuple(tensors.get(f"{number}.{place}", value) for place, value in enumerate(call))
            for number, call in enumerate(plain)
        ]

    def drop(self, block: str) -> None:
        """Delete the calls of a block."""
        for path in self.folder.glob(f"{block}.*.safetensors"):
            if path.name.removeprefix(f"{block}.").split(".")[0].isdigit():
                path.unlink()

    def _path(self, block: str, index: int) -> Path:
        return self.folder / f"{block}.{index}.safetensors"


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except OSError:
        return False


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
