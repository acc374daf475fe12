"""Sizes of the models, as stored in checkpoints. This module does not import torch."""

import math
from dataclasses import dataclass, field, fields

__all__ = ["ESM2Config", "ESMFoldConfig", "StructureModuleConfig", "TrunkConfig"]


_LARGEST = 2**17
_TOKENS = 33  # len(protquant.models.alphabet.TOKENS), which needs torch
_MOST_LAYERS = 512


def _check_sizes(config: object) -> None:
    """Refuse sizes that no model has, before memory is allocated for them."""
    for size in fields(config):  # type: ignore[arg-type]  # any dataclass
        value = getattr(config, size.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        most = _MOST_LAYERS if size.name.startswith(("num_", "max_")) else _LARGEST
        least = 0 if size.name.startswith("max_") else 1
        if isinstance(value, int) and not least <= value <= most:
            raise ValueError(f"{size.name} is {value}; models have {least} to {most}")
        if isinstance(value, float) and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{size.name} is {value}, not a positive number")


@dataclass(frozen=True)
class ESM2Config:
    """Sizes of an ESM-2 encoder; the defaults are those of `esm2_t6_8M_UR50D`.

    Attributes
    ----------
    rotary_frequencies : tuple of float, optional
        Radians per position, one for every pair of channels of a head. By default 10,000^(-2i/d). Checkpoints trained
        in half precision have rounded values, whose effect shows at distances of some hundred residues.
    has_lm_head, has_contact_head : bool
        False for a checkpoint without that head; its output then raises an error.
    """

    num_layers: int = 6
    dim: int = 320
    num_heads: int = 20
    ffn_dim: int = 1280
    vocab_size: int = 33
    layer_norm_eps: float = 1e-5
    token_dropout: bool = True
    rotary_frequencies: tuple[float, ...] | None = None
    has_lm_head: bool = True
    has_contact_head: bool = True

    def __post_init__(self) -> None:
        _check_sizes(self)
        if self.vocab_size < _TOKENS:
            raise ValueError(f"vocab_size is {self.vocab_size}, but there are {_TOKENS} tokens")
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.rotary_frequencies is not None and 2 * len(self.rotary_frequencies) != self.dim // self.num_heads:
            raise ValueError(
                f"{len(self.rotary_frequencies)} rotary frequencies do not fit heads of {self.dim // self.num_heads}"
            )


@dataclass(frozen=True)
class StructureModuleConfig:
    """Sizes of the structure module; the defaults are those of `esmfold_v1`."""

    single_dim: int = 384
    pair_dim: int = 128
    ipa_dim: int = 16
    num_heads: int = 12
    num_qk_points: int = 4
    num_v_points: int = 8
    resnet_dim: int = 128
    num_resnet_blocks: int = 2
    num_transition_layers: int = 1
    num_layers: int = 8
    num_angles: int = 7
    translation_scale: float = 10.0  # angstrom per unit of the frames inside

    def __post_init__(self) -> None:
        _check_sizes(self)


@dataclass(frozen=True)
class TrunkConfig:
    """Sizes of the trunk; the defaults are those of `esmfold_v1`."""

    num_blocks: int = 48
    single_dim: int = 1024
    pair_dim: int = 128
    single_head_dim: int = 32
    pair_head_dim: int = 32
    position_bins: int = 32
    max_recycles: int = 4
    structure_module: StructureModuleConfig = field(default_factory=StructureModuleConfig)

    def __post_init__(self) -> None:
        _check_sizes(self)
        for dim, head in ((self.single_dim, self.single_head_dim), (self.pair_dim, self.pair_head_dim)):
            if dim % head:
                raise ValueError(f"{dim} channels cannot be split into heads of {head}")


@dataclass(frozen=True)
class ESMFoldConfig:
    """Sizes of an ESMFold; the defaults are those of `esmfold_v1`."""

    lm: ESM2Config = field(default_factory=lambda: ESM2Config(num_layers=36, dim=2560, num_heads=40, ffn_dim=10240))
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    plddt_hidden_dim: int = 128
    embed_residues: bool = True

    def __post_init__(self) -> None:
        _check_sizes(self)
