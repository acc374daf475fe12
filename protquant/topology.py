"""Connections of layers, along which quantization can move scales or rotations without changing the model's function.

Models declare them (methods `links`, `products`, `streams` and `next_inputs` of their modules) and `quant` finds them;
neither imports the other. The methods return paths relative to their module; `find_...` return paths from the root.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

__all__ = ["Link", "Product", "Stream", "find_chains", "find_links", "find_products", "find_streams"]


@dataclass(frozen=True)
class Link:
    """Linear layers that read one tensor, and the layer that writes it.

    All operations in between commute with a positive scale per channel: gates, sums over other axes, ReLU.

    Attributes
    ----------
    readers : tuple of str
        Paths of all `nn.Linear` that read the tensor.
    writer : str or None
        Path of the `nn.LayerNorm` or `nn.Linear` that writes the channels; None if an operation in between does not
        commute with scales, such as GELU.
    rows : tuple of int or None
        Outputs of a linear writer that are the channels, in order; None: all outputs.
    mixable : int
        Number of neighboring channels (those of a head) that any matrix may mix, because all operations in between
        are sums over other axes; 0 if there are others.
    """

    readers: tuple[str, ...]
    writer: str | None = None
    rows: tuple[int, ...] | None = None
    mixable: int = 0

    def under(self, path: str) -> "Link":
        """Return the same connection with `path` before all paths."""
        writer = None if self.writer is None else _join(path, self.writer)
        return Link(tuple(_join(path, reader) for reader in self.readers), writer, self.rows, self.mixable)


@dataclass(frozen=True)
class Product:
    """Two linear layers whose outputs are multiplied and summed over channels, like queries and keys.

    The product stays the same when a channel of `left` is multiplied by a number and that of `right` divided by it.

    Attributes
    ----------
    left, right : str
        Paths of `nn.Linear`.
    left_rows, right_rows : tuple of int
        Outputs that are multiplied with each other, in order.
    tied : int
        A rotary embedding mixes `left_rows[i]` and `left_rows[i + tied]` for the first `tied` of every `2 * tied` rows,
        so the two must have one scale. 0 without a rotary embedding.
    """

    left: str
    right: str
    left_rows: tuple[int, ...]
    right_rows: tuple[int, ...]
    tied: int = 0

    def under(self, path: str) -> "Product":
        """Return the same connection with `path` before all paths."""
        return Product(_join(path, self.left), _join(path, self.right), self.left_rows, self.right_rows, self.tied)


@dataclass(frozen=True)
class Stream:
    """Residual stream: a vector that layers add to, and read only through a LayerNorm.

    Attributes
    ----------
    dim : int
        Number of channels.
    norms : tuple of str
        Paths of the `nn.LayerNorm` that read the stream; each is the writer of a `Link`.
    writers : tuple of str
        Paths of the `nn.Linear` whose outputs are added to the stream unchanged.
    entries, exits : tuple of str
        Paths of the `nn.Identity` where other vectors enter the stream, and where other modules read it.
    mean_is_read : bool
        Whether any reader at the exits uses the mean over channels; False if all of them subtract it first.
    """

    dim: int
    norms: tuple[str, ...]
    writers: tuple[str, ...]
    entries: tuple[str, ...]
    exits: tuple[str, ...]
    mean_is_read: bool = True

    def under(self, path: str) -> "Stream":
        """Return the same connection with `path` before all paths."""
        parts = (self.norms, self.writers, self.entries, self.exits)
        norms, writers, entries, exits = (tuple(_join(path, part) for part in paths) for paths in parts)
        return Stream(self.dim, norms, writers, entries, exits, self.mean_is_read)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def find_links(model: nn.Module) -> Iterator[Link]:
    """Yield every link of `model`, in the order of its modules."""
    for path, module in model.named_modules():
        if declare := getattr(module, "links", None):
            yield from (link.under(path) for link in declare())


def find_products(model: nn.Module) -> Iterator[Product]:
    """Yield every product of `model`, in the order of its modules."""
    for path, module in model.named_modules():
        if declare := getattr(module, "products", None):
            yield from (product.under(path) for product in declare())


def find_streams(model: nn.Module) -> Iterator[Stream]:
    """Yield every residual stream of `model`, in the order of its modules."""
    for path, module in model.named_modules():
        if declare := getattr(module, "streams", None):
            yield from (stream.under(path) for stream in declare())


def find_chains(model: nn.Module) -> list[Sequence[str]]:
    """Return the paths of each chain of blocks: of each `nn.ModuleList` whose modules all have `next_inputs`."""
    return [
        [_join(path, name) for name, _ in module.named_children()]
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(hasattr(block, "next_inputs") for block in module)
    ]
