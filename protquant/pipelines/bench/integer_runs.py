"""Our model on integers, as a contender."""

from typing import TypeVar

from torch import nn

from protquant.errors import ProtquantError

__all__ = ["BACKENDS", "check_backend", "run_on_integers"]

BACKENDS = ("auto", "reference", "cpu", "triton")

_Model = TypeVar("_Model", bound=nn.Module)


def check_backend(backend: str) -> None:
    """Raise ProtquantError if there is no such backend."""
    if backend not in BACKENDS:
        raise ProtquantError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")


def run_on_integers(quantized: _Model, backend: str) -> tuple[_Model, str]:
    """A quantized model that runs on integers from now on, and in words what does and what does not.

    The model that is given may be changed or shared.
    """
    from protquant.integer import to_integer  # noqa: PLC0415 (kernels are imported where they are used)

    running, support = to_integer(quantized, backend=backend)
    return running, str(support)
