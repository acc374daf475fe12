"""Modules that a quantized checkpoint can hold: rebuilt from the name of their class, plain settings and tensors.

A checkpoint never runs a constructor and never unpickles: it makes an empty module of a class that is known here, and
puts back what it held. So the state of a `Storable` is

* tensors, as persistent buffers or parameters;
* child modules, storable themselves or among the plain ones of torch in `STORABLE`;
* plain values: bool, int, float, str, None, tuples of these, or a `Format`. Each is annotated in the body of its class
  (`group_size: int | None`), which is what a file may set, and of which type. Saving refuses one that is not.

What can be reckoned from these goes to attributes that begin with an underscore, or to buffers that are not persistent;
they are not saved, and `restored` makes them again.
"""

from typing import Any

from torch import nn

from protquant.quant.registry import enter

__all__ = ["STORABLE", "Storable", "storable_name"]

STORABLE: dict[str, type[nn.Module]] = {
    f"nn.{cls.__name__}": cls
    for cls in (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Identity, nn.Sequential, nn.ModuleList)
}
"""The classes that may be in a checkpoint, by the name that it calls them."""


class Storable(nn.Module):
    """A module that can be saved; subclasses are known to checkpoints by being defined."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        enter(STORABLE, storable_name(cls), cls, "a module of checkpoints")

    def restored(self) -> None:
        """Make what is derived from the state, which has just been put back; a constructor may end with it too."""


def storable_name(cls: type[nn.Module]) -> str:
    """What a checkpoint calls a class: our own by their names, those of others with the module they are in."""
    if cls.__module__.startswith("torch.nn."):
        return f"nn.{cls.__name__}"
    return cls.__name__ if cls.__module__.startswith("protquant.") else f"{cls.__module__}.{cls.__qualname__}"
