"""The measurements at full size, with their limits and claims."""

import hashlib
import json
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protquant.bench.full_size import folding_script
from protquant.bench.full_size.stage import Stage
from protquant.bench.worker_process import WORKER, allocator_variables, environment_of, target_of
from protquant.checkpoints.folders import CONFIG, SCHEME
from protquant.errors import ProtquantError
from protquant.residues import AMINO_ACIDS

__all__ = [
    "FLOAT_CANDIDATES",
    "FULL_SIZE",
    "FULL_SIZE_ON_GPU",
    "Fold",
    "Plan",
    "Preparation",
    "Work",
    "check_float_checkpoint",
]

FLOAT_CANDIDATES = tuple(name for name in folding_script.BUILDERS if name != "protquant-integer")
"""Candidates that fold with the float checkpoint; the name of any other candidate is its recipe."""

_GIB = 2**30
_WARM_UP_LENGTH = 16
_TURNS_ON_GPU = 4
# Peak memory of a float candidate without activations: weights are read and cast at the same time.
_FLOAT_SHARE, _ACTIVATIONS = 1.2, 2 * _GIB


@dataclass(frozen=True)
class Preparation:
    """The quantization of the checkpoint with a recipe.

    Attributes
    ----------
    limit : float or None
        Memory limit in GiB.
    disk : float or None
        Largest size of the quantized checkpoint in GB.
    """

    recipe: str
    limit: float | None
    disk: float | None = None


@dataclass(frozen=True)
class Fold:
    """A protein that a process folds once, after it has loaded the model.

    Attributes
    ----------
    limit : float or None
        Memory limit in GiB.
    """

    recipe: str
    residues: int
    limit: float | None


@dataclass(frozen=True)
class Plan:
    """All measurements.

    Attributes
    ----------
    lengths : tuple of int
        Number of residues of the proteins that candidates fold in alternation.
    contenders : tuple of str
        Candidates: names in `FLOAT_CANDIDATES`, or recipes of `preparations`.
    load_seconds : float
        Claimed upper bound of the time to load a quantized checkpoint.
    resident_share, resident_rest : float
        Claimed upper bound of resident memory after loading: this share of the bytes on disk, plus this rest in bytes.
    """

    preparations: tuple[Preparation, ...]
    folds: tuple[Fold, ...]
    lengths: tuple[int, ...]
    contenders: tuple[str, ...]
    load_seconds: float = 15.0
    resident_share: float = 1.15
    resident_rest: float = 600e6

    def __post_init__(self) -> None:
        prepared = {each.recipe for each in self.preparations}
        asked = [*(each.recipe for each in self.folds), *self.contenders]
        if unknown := [name for name in asked if name not in prepared and name not in FLOAT_CANDIDATES]:
            raise ProtquantError(
                f"{unknown[0]}: no contender; there are {', '.join([*FLOAT_CANDIDATES, *sorted(prepared)])}"
            )


FULL_SIZE = Plan(
    preparations=(
        Preparation("w8a8-int8", limit=8, disk=3.8),
        Preparation("w4a8-int4", limit=10, disk=2.3),
        Preparation("w8a8-token", limit=8, disk=3.8),
    ),
    folds=(
        Fold("w8a8-int8", 128, limit=5),
        Fold("w4a8-int4", 128, limit=3.8),
        Fold("w8a8-int8", 256, limit=5.5),
    ),
    lengths=(64, 128, 256),
    contenders=("transformers-float32", "transformers-bfloat16", "w8a8-int8", "w4a8-int4"),
)
"""Measurements and claims for the released size."""

FULL_SIZE_ON_GPU = Plan(
    preparations=tuple(replace(each, limit=None) for each in FULL_SIZE.preparations),
    folds=(),
    lengths=(256, 512, 1024),
    contenders=FULL_SIZE.contenders,
)
"""Measurements and claims on a GPU, without memory limits: those are for main memory."""


@dataclass(frozen=True)
class Work:
    """Settings and folders of all stages of a plan.

    Attributes
    ----------
    checkpoint : Path
        Float checkpoint in the layout of transformers.
    folder : Path
        Folder for quantized checkpoints, records and logs.
    calibration : Path, optional
        FASTA file to calibrate on; by default that of `protquant quantize`.
    device : str
        Device of quantization and folding: `cpu` or `cuda`.
    """

    checkpoint: Path
    folder: Path
    threads: int
    num_recycles: int = 0
    seed: int = 0
    calibration: Path | None = None
    device: str = "cpu"

    def preparation(self, prepared: Preparation) -> Stage:
        """Return the stage that quantizes the checkpoint, without cached statistics."""
        output = self.quantized(prepared.recipe)
        command = [sys.executable, "-m", "protquant", "quantize", "-m", str(self.checkpoint)]
        command += ["-q", prepared.recipe, "-o", str(output), "--overwrite", "--json", *self.device_options]
        settings = self._settings(recipe=prepared.recipe)
        if self.calibration is not None:
            command += ["--calibration", str(self.calibration)]
            settings["calibration"] = hashlib.sha256(self.calibration.read_bytes()).hexdigest()
        return Stage(
            f"quantize {prepared.recipe}",
            command,
            settings,
            limit=_bytes(prepared.limit),
            reads=(self.checkpoint,),
            environment={**environment_of(self.threads), "PROTQUANT_CACHE": str(self.statistics)},
        )

    def fold(self, asked: Fold) -> Stage:
        """Return the stage that loads a quantized checkpoint from the disk and folds one protein."""
        limit = _bytes(asked.limit)
        within = "" if asked.limit is None else f" within {asked.limit:g} GiB"
        return self._worker(
            f"fold {asked.residues} residues, {asked.recipe}{within}", asked.recipe, (asked.residues,), limit, cold=True
        )

    def turn(self, candidate: str, lengths: tuple[int, ...], round_number: int) -> Stage:
        """Return one stage of a candidate: load, warm up, fold proteins of all lengths."""
        return self._worker(f"round {round_number}, {candidate}", candidate, lengths, None, cold=False)

    def quantized(self, recipe: str) -> Path:
        """Return the folder of the checkpoint that is quantized by a recipe."""
        return self.folder / recipe

    @property
    def device_options(self) -> list[str]:
        """Options that set the device of `protquant` commands."""
        return ["--cpu-only"] if self.device == "cpu" else []

    @property
    def statistics(self) -> Path:
        """Cache folder of calibration statistics, which is emptied before each stage."""
        return self.folder / "statistics"

    @property
    def records(self) -> Path:
        return self.folder / "stages"

    def sequence(self, residues: int) -> str:
        """Return a random protein, the same for all candidates."""
        return "".join(random.Random(f"{self.seed} {residues}").choices(AMINO_ACIDS, k=residues))

    def _worker(self, name: str, candidate: str, lengths: tuple[int, ...], limit: int | None, *, cold: bool) -> Stage:
        is_float = candidate in FLOAT_CANDIDATES
        folder, loaded = (self.checkpoint, candidate) if is_float else (self.quantized(candidate), "protquant-integer")
        sequences = [self.sequence(length) for length in lengths]
        # A first fold reads weights that are loaded from the disk only on use.
        warm_up = "" if cold else self.sequence(_WARM_UP_LENGTH)
        # On a GPU, the first folds of a length compile kernels and record them; later ones have the final speed.
        turns = 1 if self.device == "cpu" else _TURNS_ON_GPU
        common: dict[str, Any] = {"num_recycles": self.num_recycles, "device": self.device}
        requests: list[dict[str, Any]] = [
            {
                "verb": "build",
                "target": target_of(folding_script.load, is_script=True),
                "arguments": {"candidate": loaded, "folder": str(folder), **common},
                "device": self.device,
                "imports": folding_script.IMPORTS[loaded.partition("-")[0]],
            }
        ]
        requests += [{"verb": "turn", "arguments": {"sequence": each}} for each in (warm_up,) if each]
        measured = {"verb": "turn", "repeat": turns, "memory": True, "show": True}
        requests += [{**measured, "arguments": {"sequence": each}} for each in sequences]
        return Stage(
            name,
            [sys.executable, "-P", str(WORKER), "--stop"],
            self._settings(
                contender=loaded,
                sequences=sequences,
                warm_up=warm_up,
                turns=turns,
                **common,
                model=identity(folder),
            ),
            limit=limit,
            needs=round(_FLOAT_SHARE * _size(folder)) + _ACTIVATIONS if is_float else 0,
            reads=(folder,) if cold else (),
            environment=environment_of(self.threads),
            requests=[*requests, {"verb": "tell"}],
        )

    def _settings(self, **others: Any) -> dict[str, Any]:
        return {
            "checkpoint": identity(self.checkpoint),
            "threads": self.threads,
            "device": self.device,
            "allocator": allocator_variables(),
            **others,
        }


def identity(folder: Path) -> str:
    """Return a hash that identifies a checkpoint; weights are not read.

    For a quantized checkpoint it covers `scheme.json`, which has the SHA-256 of the weights; for a float checkpoint
    `config.json`, and names and sizes of files.
    """
    digest = hashlib.sha256()
    for name in (CONFIG, SCHEME):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def check_float_checkpoint(folder: Path) -> None:
    """Refuse a folder that transformers cannot read as an ESMFold.

    Raises
    ------
    ProtquantError
        If it is not such a folder; the message says how to make one.
    """
    remedy = "make one with `protquant bench make-checkpoint`"
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProtquantError(f"{folder / CONFIG}: cannot be read ({error}); {remedy}") from error
    if not isinstance(found, dict) or not found.get("is_folding_model") or not any(folder.glob("*.safetensors")):
        raise ProtquantError(f"{folder}: no ESMFold of transformers with safetensors; {remedy}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else round(gib * _GIB)
