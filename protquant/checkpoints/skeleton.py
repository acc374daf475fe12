"""A model without weights, made from its sizes before anything is loaded or downloaded."""

import os

import torch

from protquant.checkpoints.folders import SCHEME
from protquant.checkpoints.load import open_checkpoint, scheme_of
from protquant.checkpoints.registry import find_known
from protquant.checkpoints.sizes import read_sizes
from protquant.errors import ProtquantError
from protquant.models import ProteinModel
from protquant.models.registry import empty_model

__all__ = ["skeleton"]


def skeleton(name_or_path: str | os.PathLike[str]) -> ProteinModel:
    """Return the float model of a checkpoint on the meta device, where parameters take no memory.

    Parameters
    ----------
    name_or_path : str or PathLike
        See `load`. A released model is not downloaded. For a quantized checkpoint the result is the float model that
        was quantized.

    Raises
    ------
    ProtquantError
        See `load`.
    """
    name = os.fspath(name_or_path)
    with torch.device("meta"):
        if known := find_known(name):
            return empty_model(known.config).eval()
        if scheme := scheme_of(name):
            try:
                return empty_model(read_sizes(**scheme.sizes)).eval()
            except ValueError as error:
                raise ProtquantError(f"{name}: no sizes of a model in its {SCHEME} ({error})") from error
    return open_checkpoint(name).skeleton()
