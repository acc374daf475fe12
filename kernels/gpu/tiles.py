"""Tile sizes by architecture: a small table, to start from where nothing was tuned."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

__all__ = ["TARGETS", "MatmulTile", "Operands"]

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
    def of(cls, target: str, operands: Operands = "int8") -> "MatmulTile":
        """The tile for an architecture of `TARGETS`."""
        return _MATMUL[operands][target]

    def narrow(self) -> "MatmulTile":
        """Half as many columns, for epilogues that read whole float32 matrices."""
        return replace(self, block_n=self.block_n // 2)

    @classmethod
    def for_device(cls, device: torch.device, operands: Operands = "int8") -> "MatmulTile":
        """The tile for the architecture nearest to that of a device; in the interpreter, a small one."""
        if device.type != "cuda":
            return cls(64, 64, 64, 4, 2)
        if torch.version.hip is not None:
            return cls.of("gfx942", operands)
        major, _ = torch.cuda.get_device_capability(device)
        return cls.of("sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80", operands)


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
