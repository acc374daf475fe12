"""The choices a user has about the content of a prediction's files."""

from dataclasses import dataclass

from protquant.errors import ProtquantError
from protquant.proteins import B_FACTORS, PAE_RESIDUES, Prediction, Record, with_expected_error

__all__ = ["Contents"]


@dataclass(frozen=True)
class Contents:
    """The choices.

    Attributes
    ----------
    b_factor : str
        What the B-factors of structure files are, a key of `B_FACTORS`.
    pae_in_cif : int
        The most residues of a target whose predicted aligned error goes into the mmCIF file, too.
    pae_beside : bool
        Whether the predicted aligned error is written to a file of its own.

    Raises
    ------
    ProtquantError
        If one makes no sense.
    """

    b_factor: str = "plddt"
    pae_in_cif: int = PAE_RESIDUES
    pae_beside: bool = True

    def __post_init__(self) -> None:
        """Check them."""
        if self.b_factor not in B_FACTORS:
            raise ProtquantError(f"--b-factor {self.b_factor}: not known; choose {' or '.join(B_FACTORS)}")
        if self.pae_in_cif < 0:
            raise ProtquantError(f"--pae-in-cif {self.pae_in_cif}: give 0 or more residues")

    def in_structures(self, prediction: Prediction) -> Prediction:
        """Return the prediction as structure files show it."""
        return with_expected_error(prediction) if self.b_factor == "error" else prediction

    def of(self, record: Record) -> dict[str, str | bool]:
        """Return what differs between the files of this record by these choices, whichever files are wanted."""
        return {"b_factor": self.b_factor, "pae_in_cif": record.length <= self.pae_in_cif}
