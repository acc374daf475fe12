"""Tile sizes by architecture: a small table, to start from where nothing was tuned."""

from dataclasses import dataclass, replace

import torch

__all__ = ["TARGETS", "MatmulTile"]

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class MatmulTile:
    """Rows, columns and depth of a tile of a product, and how it is spread over a multiprocessor."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, target: str) -> "MatmulTile":
        """The tile for an architecture of `TARGETS`."""
        return _MATMUL[target]

    def narrow(self) -> "MatmulTile":
        """Half as many columns, for epilogues that read whole float32 matrices."""
        return replace(self, block_n=self.block_n // 2)

    @classmethod
    def for_device(cls, device: torch.device) -> "MatmulTile":
        """The tile for the architecture nearest to that of a device; in the interpreter, a small one."""
        if device.type != "cuda":
            return cls(32, 32, 32, 4, 2)
        if torch.version.hip is not None:
            return _MATMUL["gfx942"]
        major, _ = torch.cuda.get_device_capability(device)
        return _MATMUL["sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80"]


# The largest whose epilogue fits into registers: with 4 warps that of sm_90 and sm_100 does not.
_MATMUL = {
    "sm_80": MatmulTile(128, 128, 64, 8, 3),
    "sm_90": MatmulTile(128, 128, 128, 8, 3),
    "sm_100": MatmulTile(128, 128, 128, 8, 3),
    "gfx942": MatmulTile(128, 128, 64, 8, 2),
}
