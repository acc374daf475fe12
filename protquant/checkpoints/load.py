"""Load any checkpoint: the demo, released models by name, folders and files."""

import os
from importlib.resources import as_file, files
from pathlib import Path

import torch

from protquant.checkpoints.fair_esm import FILES, open_fair_esm
from protquant.checkpoints.float_checkpoint import FloatCheckpoint
from protquant.checkpoints.foreign import refuse_adapter
from protquant.checkpoints.hugging_face import NotDownloadedError, is_hub_name, open_hugging_face
from protquant.checkpoints.native import is_native, open_native, save_model
from protquant.checkpoints.quantized import is_quantized, load_quantized
from protquant.checkpoints.registry import KNOWN, KnownCheckpoint, find_known
from protquant.checkpoints.scheme import Scheme, read_scheme
from protquant.errors import ProtquantError, suggestion
from protquant.models import ProteinModel, add_to_lineage
from protquant.options import ImportOptions, takes

__all__ = ["DEMO", "import_checkpoint", "load", "open_checkpoint", "scheme_exists", "scheme_of"]

DEMO = "demo"
"""The name of the model that ships with the package."""


def load(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> ProteinModel:
    """Load a float model, or a saved quantized model.

    The codes of a quantized model are mapped from the file. Simulated layers decode their weights when they need them
    (`protquant.quant.decoded_weights`).

    Parameters
    ----------
    name_or_path : str or PathLike
        `demo`; a released model of `KNOWN`, such as `esmfold_v1`; a folder of `protquant import`, `protquant quantize`
        or transformers; a `.pt` file of fair-esm, or a `.ckpt` file of Lightning with a fair-esm model; or a name on
        the hub, `owner/name`. A known name has priority over a folder of that name: write `./demo` for the folder.
    dtype : torch.dtype
        Type to compute in. ESMFold's structure module and pLDDT head, and scales, are always float32.
    device : torch.device or str
        Device of the model.

    Returns
    -------
    ProteinModel
        The model in evaluation mode. `source` is its name or path; `fingerprint` identifies its weights before the cast
        to `dtype`.

    Raises
    ------
    ProtquantError
        If there is no such model, or it cannot be read; see `load_hugging_face`, `load_fair_esm`, `load_native`,
        `load_quantized`.
    """
    name = os.fspath(name_or_path)
    model = load_quantized(name) if scheme_exists(name) else open_checkpoint(name).load()
    model.source = name
    if not model.lineage.float_fingerprint:
        add_to_lineage(model, float_fingerprint=model.fingerprint)
    return model.set_compute_dtype(dtype).to(device)


@takes(ImportOptions)
def import_checkpoint(options: ImportOptions) -> Path:
    """Convert any float model that `load` reads to protquant's own layout; the folder is written atomically.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ProtquantError
        If the source cannot be read, or the folder is not empty or cannot be written.
    """
    if scheme_of(options.source) is not None:
        raise ProtquantError(f"{options.source}: is quantized already, and in protquant's own layout; copy the folder.")
    return save_model(
        load(options.source), options.output_folder, dtype=options.dtype or torch.float32, overwrite=options.overwrite
    )


def scheme_of(name_or_path: str | os.PathLike[str]) -> Scheme | None:
    """Return the scheme of a quantized checkpoint without loading it; None if `load` would return a float model.

    Raises
    ------
    ProtquantError
        If the checkpoint's `scheme.json` is damaged or newer.
    """
    name = os.fspath(name_or_path)
    return read_scheme(Path(name)) if scheme_exists(name) else None


def scheme_exists(name: str) -> bool:
    """Return whether `load` would return a quantized model. A known name has priority over a folder of that name."""
    return name != DEMO and not find_known(name) and is_quantized(name)


def open_checkpoint(name_or_path: str | os.PathLike[str]) -> FloatCheckpoint:
    """Open a float model without loading it: its weights are mapped, and can be read block by block.

    Parameters
    ----------
    name_or_path : str or PathLike
        See `load`.

    Raises
    ------
    ProtquantError
        See `load`; also if the model is quantized.
    """
    name = os.fspath(name_or_path)
    checkpoint = _open(name)
    checkpoint.source = name
    return checkpoint


def _open(name: str) -> FloatCheckpoint:
    if name == DEMO:
        return _open_demo()
    if known := find_known(name):
        return _open_released(known)
    path = Path(name)
    if path.is_dir():
        if is_quantized(path):
            raise ProtquantError(f"{path}: is quantized already; name the float model.")
        refuse_adapter(path)
        if not (path / "config.json").is_file():
            raise ProtquantError(f"{path}: not a checkpoint, this folder has no config.json and no scheme.json.")
        return open_native(path) if is_native(path) else open_hugging_face(path)
    if path.is_file():
        if path.suffix not in FILES:
            kinds = ", ".join(FILES)
            raise ProtquantError(
                f"{path}: not a checkpoint of fair-esm ({kinds}); for others give the folder it is in."
            )
        return open_fair_esm(path)
    if is_hub_name(name):
        return open_hugging_face(name)
    hint = suggestion(name, [DEMO, *KNOWN])
    raise ProtquantError(f"{name}: neither a known model nor an existing folder or file; {hint}")


def _open_released(known: KnownCheckpoint) -> FloatCheckpoint:
    try:
        return open_hugging_face(known.repository)
    except NotDownloadedError as error:
        raise ProtquantError(
            f"{known.name} is not on this machine and cannot be downloaded ({error.reason.split('. ')[0]}). Where the"
            f" hub can be reached, `protquant import {known.name} FOLDER` downloads {known.repository}, about"
            f" {known.gigabytes:.1f} GB, to a folder for `-m`; or let HF_HOME name a cache of downloads that has it.\n"
            f"To try the program without it, run `protquant demo`, or give `-m {DEMO}`: a small model that has"
            " memorized 50 chains."
        ) from error


def _open_demo() -> FloatCheckpoint:
    with as_file(files("protquant.demo").joinpath("weights")) as folder:
        if not folder.is_dir():
            raise ProtquantError(
                "The demo model is not in this installation (no protquant/demo/weights); install protquant again."
            )
        return open_native(folder)
