"""Candidates that load an ESMFold and fold with it: a script for a worker.

It imports protquant only to measure protquant, so that a candidate of transformers takes no more memory than for a user
of transformers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["BUILDERS", "IMPORTS", "Folding", "load"]

Coordinates = list[list[float]]

IMPORTS: dict[str, dict[str, list[str]]] = {
    "transformers": {"transformers": ["EsmForProteinFolding"]},
    "protquant": {"protquant": ["load", "to_integer", "fold"]},
}
"""Imports before loading, by the first part of a candidate's name: both packages import their modules lazily."""


@dataclass(frozen=True)
class Folding:
    """A loaded model; a call folds a sequence and returns the coordinates of its C-alpha atoms, in angstrom.

    Attributes
    ----------
    facts : dict
        Facts on the model for the document.
    """

    fold: Callable[[str], Coordinates]
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, sequence: str) -> Coordinates:
        return self.fold(sequence)

    def details(self) -> dict[str, Any]:
        return self.facts


def transformers_float32(folder: str, num_recycles: int, device: str) -> Folding:
    """Load with the types of the released checkpoint: the language model in half precision, the rest in float32."""
    return _transformers(folder, num_recycles, device, torch.float32, None)


def transformers_bfloat16(folder: str, num_recycles: int, device: str) -> Folding:
    """Load everything in bfloat16: a user asks for that type, and casts the language model too."""
    return _transformers(folder, num_recycles, device, torch.bfloat16, torch.bfloat16)


def _transformers(
    folder: str, num_recycles: int, device: str, dtype: torch.dtype, everywhere: torch.dtype | None
) -> Folding:
    from transformers.models.esm.modeling_esmfold import (  # noqa: PLC0415 (each candidate imports its own)
        EsmForProteinFolding,
        residue_constants,
    )

    model = EsmForProteinFolding.from_pretrained(folder, dtype=dtype).eval()
    if everywhere is not None:
        model = model.to(everywhere)
    model = model.to(device)
    number: Mapping[str, int] = residue_constants.restype_order_with_x

    def fold(sequence: str) -> Coordinates:
        residues = torch.tensor([[number[letter] for letter in sequence]], device=device)
        with torch.no_grad():
            output = model(residues, num_recycles=num_recycles)
        # The last layer of the structure module; N, CA and C are the first three of 14 atoms.
        coordinates: Coordinates = output.positions[-1, 0, :, 1].float().tolist()
        return coordinates

    types = {"language model": _types(model.esm), "trunk": _types(model.trunk.blocks)}
    return Folding(fold, {"types": types})


def protquant_float(folder: str, num_recycles: int, device: str) -> Folding:
    """Load a float checkpoint in float32."""
    return _protquant(folder, num_recycles, device, integer=False)


def protquant_integer(folder: str, num_recycles: int, device: str) -> Folding:
    """Load a quantized checkpoint on integers."""
    return _protquant(folder, num_recycles, device, integer=True)


def _protquant(folder: str, num_recycles: int, device: str, *, integer: bool) -> Folding:
    import protquant as pq  # noqa: PLC0415 (each candidate imports its own)

    model = pq.load(folder, device=device)
    facts: dict[str, Any] = {}
    if integer:
        model, support = pq.to_integer(model, inplace=True)
        facts = {
            "support": support.summary(),
            "weight_bytes": support.weight_bytes,
            "weight_elements": support.weight_elements,
            "simulated": sorted(row.path for row in support.simulated),
        }

    def fold(sequence: str) -> Coordinates:
        atoms = pq.fold(model, sequence, num_recycles=num_recycles).atoms  # type: ignore[arg-type]  # the type is checked at run time
        coordinates: Coordinates = atoms.coord[atoms.atom_name == "CA"].tolist()
        return coordinates

    return Folding(fold, facts)


BUILDERS: dict[str, Callable[[str, int, str], Folding]] = {
    "transformers-float32": transformers_float32,
    "transformers-bfloat16": transformers_bfloat16,
    "protquant-float32": protquant_float,
    "protquant-integer": protquant_integer,
}
"""Candidates by name."""


def load(candidate: str, folder: str, num_recycles: int, device: str) -> Folding:
    """Load one of `BUILDERS` from a checkpoint."""
    return BUILDERS[candidate](folder, num_recycles, device)


def _types(module: torch.nn.Module) -> list[str]:
    return sorted({str(each.dtype).removeprefix("torch.") for each in module.parameters()})
