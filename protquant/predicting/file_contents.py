"""Options for the content of a prediction's files."""

from dataclasses import dataclass

from protquant.errors import ProtquantError
from protquant.proteins import B_FACTORS, PAE_RESIDUES, Prediction, Record, with_expected_error

__all__ = ["Contents"]


@dataclass(frozen=True)
class Contents:
    """Options for the content of files.

    Attributes
    ----------
    b_factor : str
        The number in the B-factor column of structure files, a key of `B_FACTORS`.
    pae_in_cif : int
        Targets with at most this many residues have their predicted aligned error in the mmCIF file as well.
    pae_beside : bool
        Whether to write the predicted aligned error to its own file.

    Raises
    ------
    ProtquantError
        If an option has an invalid value.
    """

    b_factor: str = "plddt"
    pae_in_cif: int = PAE_RESIDUES
    pae_beside: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        if self.b_factor not in B_FACTORS:
            raise ProtquantError(f"--b-factor {self.b_factor}: not known; choose {' or '.join(B_FACTORS)}")
        if self.pae_in_cif < 0:
            raise ProtquantError(f"--pae-in-cif {self.pae_in_cif}: give 0 or more residues")

    def in_structures(self, prediction: Prediction) -> Prediction:
        """Return the prediction with the B-factors for structure files."""
        return with_expected_error(prediction) if self.b_factor == "error" else prediction

    def of(self, record: Record) -> dict[str, str | bool]:
        """Return the effect of these options on the files of a record, for fingerprints."""
        return {"b_factor": self.b_factor, "pae_in_cif": record.length <= self.pae_in_cif}
