"""Modules that a quantized checkpoint can store: class name, plain settings and tensors.

Loading never runs a constructor and never unpickles: it makes an empty module of a class in `STORABLE`, and restores
its state. So the state of a `Storable` is

* tensors, as persistent buffers or parameters;
* child modules, which are storable themselves or torch modules in `STORABLE`;
* plain values: bool, int, float, str, None, tuples of these, or a `Format`. The body of the class annotates each
of them (`group_size: int | None`): a file may set only these, with this type. Saving refuses all others.

Derived values are attributes that begin with an underscore, or buffers that are not persistent. They are not saved;
`restored` computes them.
"""

from typing import Any

from torch import nn

from protquant.quant.registry import enter

__all__ = ["STORABLE", "Storable", "storable_name"]

STORABLE: dict[str, type[nn.Module]] = {
    f"nn.{cls.__name__}": cls
    for cls in (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Identity, nn.Sequential, nn.ModuleList)
}
"""The classes that a checkpoint may contain, by their names in checkpoints."""


class Storable(nn.Module):
    """A module that can be saved; defining a subclass registers it in `STORABLE`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        enter(STORABLE, storable_name(cls), cls, "a module of checkpoints")

    def restored(self) -> None:
        """Compute derived values after the state has been restored; a constructor may call it as well."""


def storable_name(cls: type[nn.Module]) -> str:
    """Return the name of a class in checkpoints: protquant's classes without their module, others with it."""
    if cls.__module__.startswith("torch.nn."):
        return f"nn.{cls.__name__}"
    return cls.__name__ if cls.__module__.startswith("protquant.") else f"{cls.__module__}.{cls.__qualname__}"
