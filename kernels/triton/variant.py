"""One kernel with its types and compile-time settings, to be compiled ahead of time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Variant"]


@dataclass(frozen=True)
class Variant:
    """One kernel with its types and compile-time settings.

    Attributes
    ----------
    name : str
        Name of the kernel and of the operations that are fused into it.
    kernel : triton function
    types : dict
        Types of arguments by name, such as `*i8`, without compile-time settings.
    settings : dict
        Compile-time settings by name; None for a pointer that is left out.
    options : dict
        Number of warps and stages, and whether products and sums are fused, as at run time.
    aligned : tuple of str
        Sizes that are multiples of 16: numbers of channels, and strides over them.
    integer : bool
        Whether the kernel must use int8 matrix units.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    settings: Mapping[str, Any]
    options: Mapping[str, int] = field(default_factory=dict)
    aligned: tuple[str, ...] = ()
    integer: bool = True
