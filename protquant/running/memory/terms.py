"""Terms of a plan: what lives at once at one step of folding."""

from dataclasses import dataclass

__all__ = ["Term"]


@dataclass(frozen=True)
class Term:
    """One step of folding, and the bytes of all tensors that live at once in it.

    Attributes
    ----------
    step : str
        For people, such as "triangle attention".
    bytes : int
        Beside weights and all else that is there before a protein is folded.
    """

    step: str
    bytes: int
