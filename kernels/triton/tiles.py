"""Tile sizes by architecture: a small table, to start from where nothing was tuned."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch

__all__ = ["TARGETS", "MatmulTile", "Operands", "blocks_of", "linear_key", "target_of"]

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
# What is multiplied: int8 by int8; codes, 16-bit floats and float32 by unpacked 4-bit weights; pieces of channels.
Operands = Literal["int8", "int4", "half", "float", "flattened"]


@dataclass(frozen=True)
class MatmulTile:
    """Rows, columns and depth of a tile of a product, and how it is spread over a multiprocessor."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(
        cls, target: str | None, operands: Operands = "int8", *, channels: int = 1024, wide: bool = False
    ) -> "MatmulTile":
        """The tile of a linear layer for an architecture of `TARGETS`; None is the interpreter.

        Parameters
        ----------
        channels : int
            That a row is summed over.
        wide : bool
            Whether as many registers as the sums take hold something else: whole float32 matrices that are read after
            them, sums of groups. There is room for half as many columns then.
        """
        if target is None:
            tile = cls(64, 64, 64, 4, 2)
        elif (measured := _MEASURED.get((target, linear_key(operands, channels, wide)))) is not None:
            return measured
        else:
            tile = _MATMUL[operands][target]
        return replace(tile, block_n=tile.block_n // 2) if wide else tile


def blocks_of(count: int, size: int) -> int:
    """Blocks of `size` that hold `count`; as triton's own, which takes longer than many a launch leaves time for."""
    return -(-count // size)


def linear_key(operands: Operands, channels: int, wide: bool) -> str:
    """What tuned tiles of linear layers are kept by: those of the pair read few channels, all others many."""
    return f"linear {operands}, {'few' if channels <= 256 else 'many'} channels{', wide' if wide else ''}"


@cache
def target_of(device: torch.device) -> str | None:
    """The architecture of `TARGETS` nearest to that of a device; None for the CPU, where kernels are interpreted."""
    if device.type != "cuda":
        return None
    if torch.version.hip is not None:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(device)
    return "sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80"


# By `protquant kernels --tune` on an H100, 384 residues: what has one block of channels to sum wants many programs.
_MEASURED = {
    ("sm_90", "linear int8, few channels"): MatmulTile(128, 32, 128, 4, 2),
    ("sm_90", "linear int8, few channels, wide"): MatmulTile(64, 64, 128, 4, 2),
    ("sm_90", "linear int4, few channels, wide"): MatmulTile(128, 32, 128, 4, 2),
    ("sm_90", "linear int4, many channels, wide"): MatmulTile(128, 32, 128, 4, 2),
}
# The largest whose epilogue fits into registers: with 4 warps that of sm_90 and sm_100 does not.
_MATMUL: dict[Operands, dict[str, MatmulTile]] = {
    "int8": {
        "sm_80": MatmulTile(128, 128, 64, 8, 3),
        "sm_90": MatmulTile(128, 128, 128, 8, 3),
        "sm_100": MatmulTile(128, 128, 128, 8, 3),
        "gfx942": MatmulTile(128, 128, 64, 8, 2),
    },
    "int4": {
        "sm_80": MatmulTile(128, 128, 64, 8, 3),
        "sm_90": MatmulTile(128, 128, 128, 8, 3),
        "sm_100": MatmulTile(128, 128, 128, 8, 3),
        "gfx942": MatmulTile(128, 128, 64, 8, 2),
    },
    "half": {
        "sm_80": MatmulTile(128, 128, 64, 8, 3),
        "sm_90": MatmulTile(128, 128, 64, 8, 3),
        "sm_100": MatmulTile(128, 128, 64, 8, 3),
        "gfx942": MatmulTile(128, 128, 64, 8, 2),
    },
    "float": {
        "sm_80": MatmulTile(64, 64, 32, 8, 2),
        "sm_90": MatmulTile(64, 64, 32, 8, 2),
        "sm_100": MatmulTile(64, 64, 32, 8, 2),
        "gfx942": MatmulTile(64, 64, 32, 8, 2),
    },
    "flattened": {
        "sm_80": MatmulTile(128, 128, 64, 8, 3),
        "sm_90": MatmulTile(128, 128, 64, 8, 3),
        "sm_100": MatmulTile(128, 128, 64, 8, 3),
        "gfx942": MatmulTile(128, 128, 64, 8, 2),
    },
}
