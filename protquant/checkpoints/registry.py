"""Registries of checkpoints: released ones by name, and layouts of other model types."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from protquant.models import ESM2Config, ESMFoldConfig

__all__ = ["KNOWN", "LAYOUTS", "KnownCheckpoint", "Layout", "find_known", "register_checkpoint", "register_layout"]


@dataclass(frozen=True)
class KnownCheckpoint:
    """A released checkpoint.

    Attributes
    ----------
    name : str
        Name for `load`.
    repository : str
        Name on the hub.
    parameters : int
        Number of weights, which take four bytes each in float32.
    config : object
        Sizes of the model, of the `config_type` of its class.
    gigabytes : float
        Approximate size of the download, in 10^9 bytes.
    """

    name: str
    repository: str
    parameters: int
    config: Any
    gigabytes: float


@dataclass(frozen=True)
class Layout:
    """Describes how to read a folder with `config.json` and weights as one of our models.

    ESM-2 and ESMFold have their own reader, `protquant.checkpoints.hugging_face`.

    Attributes
    ----------
    model_type : str
        `model_type` in `config.json`.
    sizes : callable
        Returns the sizes of the model for the content of `config.json`. A KeyError, TypeError or ValueError means that
        they are not consistent.
    names : Mapping
        Our name of a module or tensor by their name: rows of a `protquant.checkpoints.names.RenameTable`.
    """

    model_type: str
    sizes: Callable[[Mapping[str, Any]], Any]
    names: Mapping[str, str]


def _esm2(name: str, parameters: int, num_layers: int, dim: int, num_heads: int) -> KnownCheckpoint:
    config = ESM2Config(num_layers=num_layers, dim=dim, num_heads=num_heads, ffn_dim=4 * dim)
    return KnownCheckpoint(name, f"facebook/{name}_UR50D", parameters, config, gigabytes=parameters * 4 / 1e9)


# transformers stores the language model of ESMFold without its head.
_ESMFOLD_V1 = replace(ESMFoldConfig(), lm=replace(ESMFoldConfig().lm, has_lm_head=False))
_CHECKPOINTS = (
    # The file has the 2.84e9 weights of the language model in 16 bits, and all others in 32.
    KnownCheckpoint("esmfold_v1", "facebook/esmfold_v1", 3_525_038_915, _ESMFOLD_V1, gigabytes=8.4),
    _esm2("esm2_t6_8M", 7_512_474, 6, 320, 20),
    _esm2("esm2_t12_35M", 33_501_394, 12, 480, 20),
    _esm2("esm2_t30_150M", 148_140_154, 30, 640, 20),
    _esm2("esm2_t33_650M", 651_043_254, 33, 1280, 20),
    _esm2("esm2_t36_3B", 2_839_005_634, 36, 2560, 40),
    _esm2("esm2_t48_15B", 15_129_100_194, 48, 5120, 40),
)
KNOWN: dict[str, KnownCheckpoint] = {known.name: known for known in _CHECKPOINTS}
"""The released checkpoints by name."""

LAYOUTS: dict[str, Layout] = {}
"""Layouts by model type."""


def register_checkpoint(known: KnownCheckpoint) -> None:
    """Register a released checkpoint for `load`.

    Raises
    ------
    ValueError
        If the name is already registered.
    """
    if known.name in KNOWN:
        raise ValueError(f"the checkpoint {known.name!r} is known already: {KNOWN[known.name].repository}")
    KNOWN[known.name] = known


def register_layout(layout: Layout) -> None:
    """Register the layout of a model type for `load`.

    Raises
    ------
    ValueError
        If the model type already has a reader.
    """
    if layout.model_type == "esm" or layout.model_type in LAYOUTS:
        raise ValueError(f"checkpoints of model type {layout.model_type!r} are read already")
    LAYOUTS[layout.model_type] = layout


def find_known(name: str) -> KnownCheckpoint | None:
    """Return the released checkpoint of a name, with or without `_UR50D`; None if there is none."""
    return KNOWN.get(name.removesuffix("_UR50D"))
