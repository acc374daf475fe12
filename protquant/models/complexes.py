"""Input of the folding model: residue types, positions, and chains joined by a linker.

As in ESMFold, the chains of a complex are joined by glycines, with a jump in the residue index.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.models.esm.openfold_utils import residue_constants

__all__ = ["LINKER", "RESIDUE_INDEX_OFFSET", "FoldingInput", "encode_complexes"]

LINKER = "G" * 25
RESIDUE_INDEX_OFFSET = 512
_UNKNOWN = residue_constants.restype_order_with_x["X"]


@dataclass
class FoldingInput:
    """A padded batch of encoded sequences.

    Attributes
    ----------
    aatype : Tensor, dtype=int64, shape=(b, l)
        Index in `residue_constants.restypes_with_x`; 20 is unknown; padding has 0.
    mask : Tensor, dtype=bool, shape=(b, l)
        True for residues and linkers, False for padding.
    residue_index : Tensor, dtype=int64, shape=(b, l)
    chain_index : Tensor, dtype=int64, shape=(b, l)
        0 for the first chain; -1 for linkers and padding, which are not part of the prediction.
    """

    aatype: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]
    residue_index: Int[Tensor, "b l"]
    chain_index: Int[Tensor, "b l"]

    def to(self, device: torch.device | str) -> "FoldingInput":
        return FoldingInput(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def encode_complexes(
    sequences: Sequence[str], linker: str = LINKER, offset: int = RESIDUE_INDEX_OFFSET
) -> FoldingInput:
    """Encode sequences whose chains are joined by ':'; letters other than the 20 residues become unknown.

    Parameters
    ----------
    linker : str
        Residues between chains.
    offset : int
        Number that is added to the residue index at every new chain.
    """
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for sequence in sequences:
        aatype: list[int] = []
        residue_index: list[int] = []
        chain_index: list[int] = []
        for number, chain in enumerate(sequence.split(":")):
            if number:
                # Indices of the linker continue the previous chain; the jump is at the first residue of the new chain.
                last = residue_index[-1]
                residue_index.extend(range(last + 1, last + 1 + len(linker)))
                aatype.extend(residue_constants.restype_order[letter] for letter in linker)
                chain_index.extend([-1] * len(linker))
            start = len(aatype) + number * offset
            residue_index.extend(range(start, start + len(chain)))
            aatype.extend(residue_constants.restype_order_with_x.get(letter, _UNKNOWN) for letter in chain)
            chain_index.extend([number] * len(chain))
        rows.append((torch.tensor(aatype), torch.tensor(residue_index), torch.tensor(chain_index)))
    aatypes, residue_indices, chain_indices = (list(column) for column in zip(*rows, strict=True))
    return FoldingInput(
        aatype=pad_sequence(aatypes, batch_first=True),
        mask=pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in aatypes], batch_first=True),
        residue_index=pad_sequence(residue_indices, batch_first=True),
        chain_index=pad_sequence(chain_indices, batch_first=True, padding_value=-1),
    )
