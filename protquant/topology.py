"""How the layers of a model hang together, as far as quantization may change it without changing what it computes.

Models declare it (methods `links`, `products`, `streams` and `next_inputs` of their modules), quantization finds it;
neither imports the other. Paths are relative to the module that declares, and from the root where they are found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

__all__ = ["Link", "Product", "Stream", "find_chains", "find_links", "find_products", "find_streams"]


@dataclass(frozen=True)
class Link:
    """Linear layers that read one tensor, and the layer that wrote it.

    Between the two lies nothing but what commutes with a positive scale per channel: gates, sums over other axes, ReLU.

    Attributes
    ----------
    readers : tuple of str
        Paths of `nn.Linear`, all that read the tensor.
    writer : str or None
        Path of the `nn.LayerNorm` or `nn.Linear` whose outputs the channels are; None where something else lies
        between, such as GELU.
    rows : tuple of int or None
        Of a writer that is an `nn.Linear`: which of its outputs the channels are, in order; None: all of them.
    mixable : int
        Where nothing but sums over other axes lies between: so many neighboring channels, those of a head, may be
        mixed by any matrix. 0 where something else does.
    """

    readers: tuple[str, ...]
    writer: str | None = None
    rows: tuple[int, ...] | None = None
    mixable: int = 0

    def under(self, path: str) -> "Link":
        """The same, seen from above."""
        writer = None if self.writer is None else _join(path, self.writer)
        return Link(tuple(_join(path, reader) for reader in self.readers), writer, self.rows, self.mixable)


@dataclass(frozen=True)
class Product:
    """Two linear layers whose outputs are multiplied and summed channel by channel, as queries and keys are.

    A channel of `left` may be multiplied, and that of `right` divided, by a number.

    Attributes
    ----------
    left, right : str
        Paths of `nn.Linear`.
    left_rows, right_rows : tuple of int
        Outputs that are multiplied with each other, in order.
    tied : int
        Channels that a rotary embedding mixes must have one scale: `left_rows[i]` and `left_rows[i + tied]` for the
        first `tied` of every `2 * tied` rows. 0 where there is none.
    """

    left: str
    right: str
    left_rows: tuple[int, ...]
    right_rows: tuple[int, ...]
    tied: int = 0

    def under(self, path: str) -> "Product":
        """The same, seen from above."""
        return Product(_join(path, self.left), _join(path, self.right), self.left_rows, self.right_rows, self.tied)


@dataclass(frozen=True)
class Stream:
    """A residual stream: a vector that layers read through a LayerNorm only, and add to.

    Attributes
    ----------
    dim : int
        Its channels.
    norms : tuple of str
        Paths of the `nn.LayerNorm` that read it, each the writer of a `Link`.
    writers : tuple of str
        Paths of the `nn.Linear` whose outputs are added to it as they are.
    entries, exits : tuple of str
        Paths of the `nn.Identity` through which other vectors are added to it, and through which it is read by others.
    mean_is_read : bool
        Whether any of those others reads the mean over channels; False where all of them subtract it first.
    """

    dim: int
    norms: tuple[str, ...]
    writers: tuple[str, ...]
    entries: tuple[str, ...]
    exits: tuple[str, ...]
    mean_is_read: bool = True

    def under(self, path: str) -> "Stream":
        """The same, seen from above."""
        parts = (self.norms, self.writers, self.entries, self.exits)
        norms, writers, entries, exits = (tuple(_join(path, part) for part in paths) for paths in parts)
        return Stream(self.dim, norms, writers, entries, exits, self.mean_is_read)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def find_links(model: nn.Module) -> Iterator[Link]:
    """Every link of `model`, in the order of its modules."""
    for path, module in model.named_modules():
        if declare := getattr(module, "links", None):
            yield from (link.under(path) for link in declare())


def find_products(model: nn.Module) -> Iterator[Product]:
    """Every product of `model`, in the order of its modules."""
    for path, module in model.named_modules():
        if declare := getattr(module, "products", None):
            yield from (product.under(path) for product in declare())


def find_streams(model: nn.Module) -> Iterator[Stream]:
    """Every residual stream of `model`, in the order of its modules."""
    for path, module in model.named_modules():
        if declare := getattr(module, "streams", None):
            yield from (stream.under(path) for stream in declare())


def find_chains(model: nn.Module) -> list[Sequence[str]]:
    """Paths of blocks that feed each other: the lists of modules that have `next_inputs(inputs, outputs)`."""
    return [
        [_join(path, name) for name, _ in module.named_children()]
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(hasattr(block, "next_inputs") for block in module)
    ]
