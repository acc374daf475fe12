"""The released checkpoints that can be named: what they are called, where they are, and their sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from protquant.models import ESM2Config, ESMFoldConfig

__all__ = ["KNOWN", "KnownCheckpoint", "find_known"]


@dataclass(frozen=True)
class KnownCheckpoint:
    """A released checkpoint.

    Attributes
    ----------
    name : str
        What `load` knows it by.
    repository : str
        Its name on the hub.
    parameters : int
        How many weights it has; four bytes each in float32.
    config : ESM2Config or ESMFoldConfig
    gigabytes : float
        About how much is downloaded, in 10^9 bytes.
    """

    name: str
    repository: str
    parameters: int
    config: ESM2Config | ESMFoldConfig
    gigabytes: float

    @property
    def kind(self) -> Literal["esm2", "esmfold"]:
        return "esmfold" if isinstance(self.config, ESMFoldConfig) else "esm2"


def _esm2(name: str, parameters: int, num_layers: int, dim: int, num_heads: int) -> KnownCheckpoint:
    config = ESM2Config(num_layers=num_layers, dim=dim, num_heads=num_heads, ffn_dim=4 * dim)
    return KnownCheckpoint(name, f"facebook/{name}_UR50D", parameters, config, gigabytes=parameters * 4 / 1e9)


# The stem as transformers holds it, without its language-model head.
_ESMFOLD_V1 = replace(ESMFoldConfig(), lm=replace(ESMFoldConfig().lm, has_lm_head=False))
_CHECKPOINTS = (
    # The file has the 2.84e9 weights of the stem in 16 bits and the others in 32.
    KnownCheckpoint("esmfold_v1", "facebook/esmfold_v1", 3_525_038_915, _ESMFOLD_V1, gigabytes=8.4),
    _esm2("esm2_t6_8M", 7_512_474, 6, 320, 20),
    _esm2("esm2_t12_35M", 33_501_394, 12, 480, 20),
    _esm2("esm2_t30_150M", 148_140_154, 30, 640, 20),
    _esm2("esm2_t33_650M", 651_043_254, 33, 1280, 20),
    _esm2("esm2_t36_3B", 2_839_005_634, 36, 2560, 40),
    _esm2("esm2_t48_15B", 15_129_100_194, 48, 5120, 40),
)
KNOWN: Mapping[str, KnownCheckpoint] = MappingProxyType({known.name: known for known in _CHECKPOINTS})
"""The released checkpoints by name."""


def find_known(name: str) -> KnownCheckpoint | None:
    """The released checkpoint of that name, with or without its `_UR50D`; None if there is none."""
    return KNOWN.get(name.removesuffix("_UR50D"))
