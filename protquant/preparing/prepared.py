"""Quantized checkpoints in the cache folder: made once for a model and a recipe, and loaded by later runs."""

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
    """Return the cached folder of a model that is quantized by a recipe; make it if it does not exist.

    Before making it, print its size and an estimate of time and memory to standard error.

    Parameters
    ----------
    model : str
        Float model, see `load`.
    quant : Recipe, str or Path
        A recipe, its name, or a YAML file.
    sequences : sequence of str, optional
        Sequences to calibrate on, if the recipe needs them; by default those that ship with protquant.
    folding : bool, optional
        True: only for folding models. False: only for other models.
    max_memory : int, optional
        Maximal bytes of memory of this process, by default the free memory. If the estimate is higher, an error is
        raised.
    cpu_only : bool
        Whether to quantize on the CPU even if there is a GPU.

    Returns
    -------
    Path or None
        None if the cache is off (`PROTQUANT_CACHE=off`), the recipe needs the whole model in memory, or `folding`
        excludes the model. The caller then has to quantize it in memory.

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
    with _locked(target):
        if not is_quantized(target):  # another process may have made it in the meantime
            cost = preparation_cost(skeleton, recipe, sequences, device)
            cost.check(f"{model} by {recipe.name}", max_memory)
            note(f"preparing {model} by {recipe.name}, once: {cost}, in {target}. --no-cache quantizes in memory.")
            stream_checkpoint(checkpoint, recipe, sequences, target, device=device)
    return target


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Lock a checkpoint so that only one process makes it; others print a note and wait."""
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
    """Return the finished and unfinished checkpoints in the cache folder."""
    folder = cache_folder()
    if folder is None or not (folder / _FOLDER).is_dir():
        return []
    return [
        PreparedCheckpoint(path, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
        for path in sorted((folder / _FOLDER).iterdir())
        if path.is_dir()
    ]


def delete_prepared() -> int:
    """Delete the checkpoints in the cache folder, and return the number of freed bytes."""
    prepared = list_prepared()
    for checkpoint in prepared:
        shutil.rmtree(checkpoint.folder)
    return sum(checkpoint.bytes for checkpoint in prepared)
