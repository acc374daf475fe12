"""What folding one target gives."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

import numpy as np
from biotite.structure import AtomArray
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.proteins.provenance import Provenance

__all__ = ["MAX_PAE", "Prediction"]

MAX_PAE = 31.75
"""Largest predicted aligned error in angstrom that the 64 bins of the PAE head can express (center of the last)."""


@dataclass(eq=False, repr=False)
class Prediction:
    """One folded target.

    Attributes
    ----------
    name : str
        Stem of its files.
    header : str
        Its FASTA header as it stood in the file.
    sequence : str
        One-letter codes of the L residues, `:` between chains.
    atoms : AtomArray
        Chains A, B, ..., residue numbers from 1 in each, pLDDT in `b_factor` (see `atoms_from_atom37`).
    plddt : ndarray, shape=(L,)
        pLDDT of each residue's alpha carbon, from 0 to 100.
    pae : ndarray, shape=(L, L), or None
        Predicted aligned error in angstrom: error of residue j when residue i is superimposed.
    ptm : float
        Predicted TM-score, from 0 to 1.
    max_pae : float
        The largest error that the model can express, in angstrom.
    recycles : int
        How often the trunk's output was fed back.
    provenance : Provenance
        What made it.
    geometry : mapping of str to number
        Measures of its geometry, by column of the table of results.
    warnings : tuple of str
        Why it must not be trusted, whatever the pLDDT says. Tables, pictures and structure files repeat them.

    Raises
    ------
    ValueError
        If an array does not fit the sequence, or the pLDDT is not on the scale from 0 to 100 (a `ProtquantError` if
        it is not finite).
    """

    name: str
    header: str
    sequence: str
    atoms: AtomArray
    plddt: NDArray[np.floating]
    pae: NDArray[np.floating] | None = None
    ptm: float = float("nan")
    max_pae: float = MAX_PAE
    recycles: int = 0
    provenance: Provenance = field(default_factory=Provenance)
    geometry: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the shapes and the scale, where a slip would only show in somebody's figure."""
        self.plddt = np.asarray(self.plddt)
        if self.plddt.shape != (self.length,):
            raise ValueError(f"{self.name}: plddt has shape {self.plddt.shape}, expected ({self.length},)")
        if self.pae is not None:
            self.pae = np.asarray(self.pae)
            if self.pae.shape != (self.length, self.length):
                raise ValueError(
                    f"{self.name}: pae has shape {self.pae.shape}, expected ({self.length}, {self.length})"
                )
        low, high = float(self.plddt.min()), float(self.plddt.max())
        if not math.isfinite(low + high):
            raise ProtquantError(
                f"{self.name}: the pLDDT is not finite. "
                "The model overflowed: fold with --dtype float32, or with a recipe that keeps more bits."
            )
        # The head's 50 bins have centers from 1 to 99, so a value below 1 everywhere is on the scale from 0 to 1.
        if not 0 <= low <= high <= 100 or high < 1:
            raise ValueError(f"{self.name}: plddt runs from {low:g} to {high:g}, expected the scale from 0 to 100")

    @property
    def chains(self) -> list[str]:
        """The sequences of the chains."""
        return self.sequence.split(":")

    @property
    def length(self) -> int:
        """Number of residues of all chains."""
        return sum(map(len, self.chains))

    @property
    def mean_plddt(self) -> float:
        """Mean pLDDT of the residues, from 0 to 100."""
        return float(self.plddt.mean())

    def row(self) -> dict[str, str | int | float]:
        """The target's row in the table of results."""
        return {
            "name": self.name,
            "header": self.header,
            "length": self.length,
            "chains": len(self.chains),
            "mean_plddt": self.mean_plddt,
            "ptm": float(self.ptm),
            "recycles": self.recycles,
            **self.geometry,
            "warnings": "; ".join(self.warnings),
        }

    def facts(self) -> dict[str, str]:
        """What made it, for structure files: the provenance and the number of recycles."""
        return {**self.provenance.facts(), "recycles": str(self.recycles)}

    def remarks(self) -> list[str]:
        """The warnings, then what made it, a line each."""
        warnings = [f"WARNING: {warning}" for warning in self.warnings]
        return warnings + [f"{name}: {value}" for name, value in self.facts().items()]

    def __repr__(self) -> str:
        """One line: the arrays would fill the screen."""
        chains = f", {len(self.chains)} chains" if len(self.chains) > 1 else ""
        warnings = "".join(f"; WARNING: {warning}" for warning in self.warnings)
        return (
            f"Prediction({self.name!r}: {self.length} residues{chains}, "
            f"pLDDT {self.mean_plddt:.1f}, pTM {self.ptm:.3f}, {self.recycles} recycles{warnings})"
        )

    def _repr_html_(self) -> str:
        """The warnings, the row of the table and what made it, for notebooks."""
        shown = {**self.row(), **self.facts()}
        del shown["warnings"]
        warnings = "".join(f"<p><b>Warning:</b> {escape(warning)}</p>" for warning in self.warnings)
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(_shown(value))}</td></tr>" for name, value in shown.items()
        )
        return f"{warnings}<table>{cells}</table>"


def _shown(value: str | float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
