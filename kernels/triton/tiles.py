"""A small table of tile sizes by architecture, for kernels that were not tuned."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch

__all__ = ["TARGETS", "MatmulTile", "Operands", "blocks_of", "linear_key", "target_of"]

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
# Operands: int8 by int8; codes, 16-bit floats and float32 by unpacked 4-bit weights; pieces of channels.
Operands = Literal["int8", "int4", "half", "float", "flattened"]


@dataclass(frozen=True)
class MatmulTile:
    """Rows, columns and depth of a tile of a product, and its number of warps and stages."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(
        cls, target: str | None, operands: Operands = "int8", *, channels: int = 1024, wide: bool = False
    ) -> "MatmulTile":
        """Return the tile of a linear layer for an architecture of `TARGETS`; None is the interpreter.

        Parameters
        ----------
        channels : int
            Number of channels of a row.
        wide : bool
            Whether something else takes as many registers as the sums: float32 matrices of the epilogue, or sums of
            groups. The tile then has half as many columns.
        """
        if target is None:
            tile = cls(64, 64, 64, 4, 2)
        elif (measured := _MEASURED.get((target, linear_key(operands, channels, wide)))) is not None:
            return measured
        else:
            tile = _MATMUL[operands][target]
        return replace(tile, block_n=tile.block_n // 2) if wide else tile


def blocks_of(count: int, size: int) -> int:
    """Return the number of blocks of `size` for `count` elements; `triton.cdiv` is too slow for short kernels."""
    return -(-count // size)


def linear_key(operands: Operands, channels: int, wide: bool) -> str:
    """Return the name of tuned tiles of linear layers: layers of the pair read few channels, all others many."""
    return f"linear {operands}, {'few' if channels <= 256 else 'many'} channels{', wide' if wide else ''}"


@cache
def target_of(device: torch.device) -> str | None:
    """Return the nearest architecture in `TARGETS` for a device; None for the CPU, which interprets kernels."""
    if device.type != "cuda":
        return None
    if torch.version.hip is not None:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(device)
    return "sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80"


# Found by `protquant kernels --tune` on an H100 with 384 residues: sums over one block of channels need many programs.
_MEASURED = {
    ("sm_90", "linear int8, few channels"): MatmulTile(128, 32, 128, 4, 2),
    ("sm_90", "linear int8, few channels, wide"): MatmulTile(64, 64, 128, 4, 2),
    ("sm_90", "linear int4, few channels, wide"): MatmulTile(128, 32, 128, 4, 2),
    ("sm_90", "linear int4, many channels, wide"): MatmulTile(128, 32, 128, 4, 2),
}
# The largest tiles whose epilogue fits into registers; on sm_90 and sm_100 it does not fit with 4 warps.
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
