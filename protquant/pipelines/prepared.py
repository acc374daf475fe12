"""Quantized checkpoints in the cache folder: prepared once for a model and a recipe, loaded from there ever after."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from protquant.cache_folder import cache_folder
from protquant.checkpoints import FloatCheckpoint, is_quantized, open_checkpoint
from protquant.models import ESM2, ESMFold
from protquant.pipelines.calibration import calibration_sequences
from protquant.pipelines.streaming import fingerprint_of, stream_checkpoint
from protquant.proteins import fingerprint
from protquant.quant import Recipe, load_recipe, needs_sequences, needs_whole_model, plan
from protquant.topology import find_chains

__all__ = ["PreparedCheckpoint", "delete_prepared", "list_prepared", "prepare"]

_FOLDER = "models"


@dataclass(frozen=True)
class PreparedCheckpoint:
    """A quantized checkpoint in the cache folder.

    Attributes
    ----------
    folder : Path
    bytes : int
    """

    folder: Path
    bytes: int


def prepare(
    model: str,
    quant: Recipe | str | Path,
    sequences: Sequence[str] | None = None,
    *,
    kind: type[ESM2 | ESMFold] | None = None,
) -> Path | None:
    """Return the folder of a model that is quantized by a recipe; make it where it is not there yet.

    Before it is made, standard error tells how many bytes it will take, and how much memory making it takes.

    Parameters
    ----------
    model : str
        Float model, as for `load`.
    quant : Recipe, str or Path
        A recipe, its name, or a YAML file.
    sequences : sequence of str, optional
        Sequences to calibrate on, where the recipe needs that; by default those that ship with protquant.
    kind : type, optional
        What the model has to be.

    Returns
    -------
    Path or None
        None where nothing is kept on disk (`PROTQUANT_CACHE=off`), the recipe needs the whole model in memory, or the
        model is of another kind: quantize it in memory then.

    Raises
    ------
    ProtquantError
        If the model or the recipe cannot be used.

    Examples
    --------
    >>> model = load(prepare("esmfold_v1", "w8a8-int8"))  # doctest: +SKIP
    """
    recipe, folder = load_recipe(quant), cache_folder()
    sequences = calibration_sequences() if sequences is None else list(sequences)
    if folder is None or needs_whole_model(recipe):
        return None
    checkpoint = open_checkpoint(model)
    skeleton = checkpoint.skeleton()
    if kind is not None and not isinstance(skeleton, kind):
        return None
    facts = {
        "model": fingerprint_of(checkpoint),
        "recipe": recipe.to_dict(),
        "sequences": sequences if needs_sequences(skeleton, recipe) else None,
        "protquant": version("protquant"),
    }
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(model).name)
    target = folder / _FOLDER / f"{stem}-{recipe.name}-{fingerprint(facts)[:16]}"
    if not is_quantized(target):
        _announce(checkpoint, recipe, target)
        stream_checkpoint(checkpoint, recipe, sequences, target)
    return target


def list_prepared() -> list[PreparedCheckpoint]:
    """Return the checkpoints in the cache folder, finished and unfinished ones."""
    folder = cache_folder()
    if folder is None or not (folder / _FOLDER).is_dir():
        return []
    return [
        PreparedCheckpoint(path, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
        for path in sorted((folder / _FOLDER).iterdir())
        if path.is_dir()
    ]


def delete_prepared() -> int:
    """Delete the checkpoints in the cache folder, and return how many bytes that frees."""
    prepared = list_prepared()
    for each in prepared:
        shutil.rmtree(each.folder)
    return sum(each.bytes for each in prepared)


def _announce(checkpoint: FloatCheckpoint, recipe: Recipe, target: Path) -> None:
    """Tell what is going to be made, how large it is, and what making it takes."""
    skeleton = checkpoint.skeleton()
    kept: float = sum(parameter.numel() * parameter.element_size() for parameter in skeleton.parameters())
    for assignment in plan(skeleton, recipe):
        if assignment.site.is_weight and assignment.format is not None:
            elements = skeleton.get_parameter(f"{assignment.site.module}.weight").numel()
            kept -= elements * (4 - assignment.format.code_bits / 8)
    blocks = [skeleton.get_submodule(block) for chain in find_chains(skeleton) for block in chain]
    largest = max((sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks), default=0)
    tqdm.write(
        f"preparing {checkpoint.source} by {recipe.name}, once: {kept / 1e9:.2f} GB in {target}. One block at a time is"
        f" in memory, at most {largest / 2**20:.0f} MiB in float. --no-cache quantizes in memory instead.",
        file=sys.stderr,
    )
