"""One kernel with its types and compile-time settings: what is compiled ahead of time."""

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
        Of the kernel, and what is fused into it.
    kernel : triton function
    types : dict
        Types of arguments by name, such as `*i8`; those of compile-time settings are left out.
    settings : dict
        Compile-time settings by name; a pointer that is left out is None.
    options : dict
        Warps and stages, and that products and sums are fused, as when kernels run.
    aligned : tuple of str
        Sizes that are multiples of 16: numbers of channels, and strides over them.
    integer : bool
        Whether it has to multiply on int8 matrix units.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    settings: Mapping[str, Any]
    options: Mapping[str, int] = field(default_factory=dict)
    aligned: tuple[str, ...] = ()
    integer: bool = True
