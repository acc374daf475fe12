"""Terms of a memory plan: the tensors that live at the same time in one step of folding."""

from dataclasses import dataclass

__all__ = ["Term"]


@dataclass(frozen=True)
class Term:
    """One step of folding, and the bytes of all tensors that live at the same time in it.

    Attributes
    ----------
    step : str
        Name of the step for the user, such as "triangle attention".
    bytes : int
        Bytes in addition to the memory before folding, such as weights.
    """

    step: str
    bytes: int
