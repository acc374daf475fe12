"""The result of folding one target."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import combinations

import numpy as np
from biotite.structure import AtomArray
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.proteins.atoms import chain_ids
from protquant.proteins.provenance import Provenance

__all__ = ["B_FACTORS", "MAX_PAE", "Prediction"]

MAX_PAE = 31.75
"""Largest predicted aligned error in angstrom: the center of the last of the PAE head's 64 bins."""

B_FACTORS = {
    "plddt": "pLDDT of each atom, 0-100",
    "error": "8 pi^2/3 x (expected error of each atom in angstrom)^2, at most 999.99;"
    " expected error: 1.5 exp(4 (0.7 - pLDDT/100))",
}
"""Kinds of B-factors, with the descriptions that structure files contain."""


@dataclass(eq=False, repr=False)
class Prediction:
    """The result of folding one target.

    Attributes
    ----------
    name : str
        Stem of the target's files.
    header : str
        FASTA header of the target.
    sequence : str
        One-letter codes of the L residues, `:` between chains.
    atoms : AtomArray
        Chains A, B, ..., residue numbers from 1 in each (see `atoms_from_atom37`).
    plddt : ndarray, shape=(L,)
        pLDDT of each residue's alpha carbon, from 0 to 100.
    pae : ndarray, shape=(L, L), or None
        Predicted aligned error in angstrom: error of residue j if residue i is superimposed.
    ptm : float
        Predicted TM-score, from 0 to 1.
    iptm : float
        Predicted interface TM-score of a complex, from 0 to 1; NaN for a single chain.
    chain_pair_iptm : ndarray, shape=(c, c), or None
        Predicted interface TM-scores of pairs of chains; the diagonal has the pTM of single chains.
    max_pae : float
        Largest error in angstrom that the model can express.
    recycles : int
        Number of times that the trunk's output was fed back.
    provenance : Provenance
        Program, model and settings that made the prediction.
    geometry : mapping of str to number
        Measures of the structure's geometry, by column of the table of results.
    b_factor : str
        Kind of `atoms.b_factor`, a key of `B_FACTORS`: `plddt`, or `error` after `with_expected_error`.
    warnings : tuple of str
        Reasons not to trust the prediction, even if the pLDDT is high. Tables, plots and structure files repeat them.

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
    iptm: float = float("nan")
    chain_pair_iptm: NDArray[np.floating] | None = None
    max_pae: float = MAX_PAE
    recycles: int = 0
    provenance: Provenance = field(default_factory=Provenance)
    geometry: Mapping[str, float] = field(default_factory=dict)
    b_factor: str = "plddt"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the shapes, and the scale of the pLDDT."""
        self.plddt = np.asarray(self.plddt)
        if self.plddt.shape != (self.length,):
            raise ValueError(f"{self.name}: plddt has shape {self.plddt.shape}, expected ({self.length},)")
        if self.pae is not None:
            self.pae = np.asarray(self.pae)
            if self.pae.shape != (self.length, self.length):
                raise ValueError(
                    f"{self.name}: pae has shape {self.pae.shape}, expected ({self.length}, {self.length})"
                )
        if self.chain_pair_iptm is not None:
            self.chain_pair_iptm, count = np.asarray(self.chain_pair_iptm), len(self.chains)
            if self.chain_pair_iptm.shape != (count, count):
                raise ValueError(
                    f"{self.name}: chain_pair_iptm has shape {self.chain_pair_iptm.shape}, expected ({count}, {count})"
                )
        low, high = float(self.plddt.min()), float(self.plddt.max())
        if not math.isfinite(low + high):
            raise ProtquantError(
                f"{self.name}: the pLDDT is not finite. "
                "The model overflowed: fold with --dtype float32, or with a recipe that keeps more bits."
            )
        # The centers of the head's 50 bins are 1 to 99. If all values are below 1, the scale is from 0 to 1.
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
        """Return the target's row in the table of results."""
        return {
            "name": self.name,
            "header": self.header,
            "length": self.length,
            "chains": len(self.chains),
            "mean_plddt": self.mean_plddt,
            "ptm": float(self.ptm),
            "iptm": float(self.iptm),
            "recycles": self.recycles,
            **self.geometry,
            "warnings": "; ".join(self.warnings),
        }

    def iptm_of_pairs(self) -> dict[tuple[str, str], float]:
        """Return the ipTM of each pair of chains, by their names; empty if it is not known, as for a single chain."""
        if self.chain_pair_iptm is None:
            return {}
        names = chain_ids(len(self.chains))
        pairs = combinations(range(len(names)), 2)
        return {(names[i], names[j]): float(self.chain_pair_iptm[i, j]) for i, j in pairs}

    def facts(self) -> dict[str, str]:
        """Return facts for structure files: provenance, number of recycles, and the meaning of the B-factors."""
        return {**self.provenance.facts(), "recycles": str(self.recycles), "B-factors": B_FACTORS[self.b_factor]}

    def remarks(self) -> list[str]:
        """Return lines for structure files: the warnings, then the facts."""
        warnings = [f"WARNING: {warning}" for warning in self.warnings]
        return warnings + [f"{name}: {value}" for name, value in self.facts().items()]

    def __repr__(self) -> str:
        """Return one line without the arrays, which would fill the screen."""
        chains = f", {len(self.chains)} chains" if len(self.chains) > 1 else ""
        iptm = f", ipTM {self.iptm:.3f}" if math.isfinite(self.iptm) else ""
        warnings = "".join(f"; WARNING: {warning}" for warning in self.warnings)
        return (
            f"Prediction({self.name!r}: {self.length} residues{chains}, "
            f"pLDDT {self.mean_plddt:.1f}, pTM {self.ptm:.3f}{iptm}, {self.recycles} recycles{warnings})"
        )

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: warnings, the row of the table, ipTM of pairs of chains, and facts."""
        pairs = {f"iptm {first}-{second}": value for (first, second), value in self.iptm_of_pairs().items()}
        shown = {**self.row(), **pairs, **self.facts()}
        del shown["warnings"]
        warnings = "".join(f"<p><b>Warning:</b> {escape(warning)}</p>" for warning in self.warnings)
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(_shown(value))}</td></tr>" for name, value in shown.items()
        )
        return f"{warnings}<table>{cells}</table>"


def _shown(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else ""
    return str(value)
