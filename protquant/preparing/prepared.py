"""Quantized checkpoints in the cache folder: prepared once for a model and a recipe, loaded from there ever after."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from protquant.checkpoints import is_quantized, open_checkpoint
from protquant.files import fingerprint, prepare_folder
from protquant.files.cache_folder import cache_folder
from protquant.preparing.preparation_cost import preparation_cost
from protquant.preparing.quantize import calibration_sequences
from protquant.preparing.streaming import fingerprint_of, made_on, stream_checkpoint
from protquant.proteins import safe_name
from protquant.quant import Recipe, load_recipe, needs_sequences, needs_whole_model
from protquant.reporting.progress import note
from protquant.running.devices import pick_device

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
    folding: bool | None = None,
    max_memory: int | None = None,
    cpu_only: bool = False,
) -> Path | None:
    """Return the folder of a model that is quantized by a recipe; make it where it is not there yet.

    Before it is made, standard error tells how large it will be, and about how long and how much memory that takes.

    Parameters
    ----------
    model : str
        Float model, as for `load`.
    quant : Recipe, str or Path
        A recipe, its name, or a YAML file.
    sequences : sequence of str, optional
        Sequences to calibrate on, where the recipe needs that; by default those that ship with protquant.
    folding : bool, optional
        Whether the model has to fold (True) or must not (False).
    max_memory : int, optional
        Bytes that this process may take, by default what is free. Where making the checkpoint takes more by the
        estimate, it is not begun.
    cpu_only : bool
        Whether to quantize on the CPU where there is a GPU.

    Returns
    -------
    Path or None
        None where nothing is kept on disk (`PROTQUANT_CACHE=off`), the recipe needs the whole model in memory, or the
        model is of another kind: quantize it in memory then.

    Raises
    ------
    ProtquantError
        If the model or the recipe cannot be used, or there is too little memory.

    Examples
    --------
    >>> model = load(prepare("esmfold_v1", "w8a8-int8"))  # doctest: +SKIP
    """
    recipe, folder, device = load_recipe(quant), cache_folder(), pick_device(cpu_only)
    sequences = calibration_sequences() if sequences is None else list(sequences)
    if folder is None or needs_whole_model(recipe):
        return None
    checkpoint = open_checkpoint(model)
    skeleton = checkpoint.skeleton()
    if folding is not None and ("structure" in skeleton.tasks) != folding:
        return None
    facts = {
        "model": fingerprint_of(checkpoint),
        "recipe": recipe.to_dict(),
        "sequences": sequences if needs_sequences(skeleton, recipe) else None,
        "protquant": version("protquant"),
        **made_on(device),
    }
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(model).name)
    target = folder / _FOLDER / f"{stem}-{safe_name(recipe.name)}-{fingerprint(facts)[:16]}"
    if is_quantized(target):
        return target
    with _alone(target):
        if not is_quantized(target):  # another process may have made it meanwhile
            cost = preparation_cost(skeleton, recipe, sequences, device)
            cost.check(f"{model} by {recipe.name}", max_memory)
            note(f"preparing {model} by {recipe.name}, once: {cost}, in {target}. --no-cache quantizes in memory.")
            stream_checkpoint(checkpoint, recipe, sequences, target, device=device)
    return target


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process at a time make a checkpoint; others wait, and say so."""
    prepare_folder(target.parent)
    lock = FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"another process is preparing {target}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
