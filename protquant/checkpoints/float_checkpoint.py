"""A float checkpoint with tensors mapped from its files, to be loaded as a whole or one block at a time."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from protquant.checkpoints.assemble import check_places, fingerprint, listed
from protquant.checkpoints.names import RenameTable
from protquant.checkpoints.stored_units import lies_in, unit_names
from protquant.errors import ProtquantError
from protquant.files.mapped_memory import forget_pages
from protquant.models import ProteinModel
from protquant.quant.memory import release_freed

__all__ = ["FloatCheckpoint"]

_KEPT_BYTES = 2**28


class FloatCheckpoint:
    """Sizes and tensors of a float checkpoint.

    Parameters
    ----------
    make : callable
        Makes the model. It is called with the meta device as the default, and so allocates nothing.
    state : dict
        The checkpoint's tensors by the checkpoint's names, without ignored ones. Readers map them from files if
        possible, so that they take no memory until they are read.
    source : str
        Path or name of the checkpoint, for messages and for the model's `source`.
    table : RenameTable, optional
        Table of the checkpoint's names and ours; by default the names are ours.
    known_fingerprint : str
        Fingerprint of the model, if it is known.
    files : sequence of Path
        The files of the tensors and sizes.

    Attributes
    ----------
    device : torch.device
        Device to which `read_into` moves weights; at first the CPU.

    Raises
    ------
    ProtquantError
        If tensors are missing or surplus, or have another shape or kind; the message has the checkpoint's names.
    """

    def __init__(
        self,
        make: Callable[[], ProteinModel],
        state: Mapping[str, Tensor],
        source: str,
        table: RenameTable | None = None,
        known_fingerprint: str = "",
        files: Sequence[Path] = (),
    ) -> None:
        self.source, self.files = source, tuple(files)
        self._make = make
        with torch.device("meta"):
            plan = make()
        places = plan.state_dict()
        self._blocks = frozenset(unit_names(plan))
        their_name = {name: (table and table.to_theirs(name)) or name for name in places}
        check_places({their_name[name]: place for name, place in places.items()}, state, source)
        self._state = {name: state[theirs] for name, theirs in their_name.items()}
        for name, tensor in self._state.items():
            # In a pickle a tensor may claim more elements than its storage has.
            if tensor.nbytes > tensor.untyped_storage().nbytes():
                raise ProtquantError(
                    f"{source}: {their_name[name]} is said to have {tensor.nbytes} bytes, and there are"
                    f" {tensor.untyped_storage().nbytes()} in the file; save the model again."
                )
        self._their_name = their_name
        self._fingerprint = known_fingerprint
        self.device = torch.device("cpu")

    def skeleton(self) -> ProteinModel:
        """Return the model without weights, on the meta device, in evaluation mode."""
        with torch.device("meta"):
            model = self._make()
        model.source, model.fingerprint = self.source, self._fingerprint
        return model.eval()

    def load(self) -> ProteinModel:
        """Return the model in float32 on the CPU, in evaluation mode. Afterwards the checkpoint cannot be used.

        Raises
        ------
        ProtquantError
            If a weight is not finite.
        """
        model = self.skeleton()
        places, unreal = {}, []
        for name in list(self._state):
            # One by one, so that a half-precision checkpoint is never in memory twice.
            stored = self._state.pop(name)
            if not _is_finite(stored):
                unreal.append(name)
            places[name] = stored.to(torch.float32).contiguous()
            if places[name].data_ptr() != stored.data_ptr():
                forget_pages([stored])
        self._refuse(unreal)
        model.load_state_dict(places, assign=True)
        model.fingerprint = self._fingerprint or fingerprint(model.config, model.state_dict())
        return model.eval()

    def fingerprint(self) -> str:
        """Return the fingerprint of the model, see `protquant.checkpoints.assemble.fingerprint`.

        Every weight is read once; the result is cached.

        Raises
        ------
        ProtquantError
            If a weight is not finite.
        """
        if not self._fingerprint:
            with torch.device("meta"):
                config = self._make().config
            self._fingerprint = fingerprint(config, _Checked(self))
        return self._fingerprint

    @property
    def knows_fingerprint(self) -> bool:
        """Whether the fingerprint is known without reading the weights."""
        return bool(self._fingerprint)

    def know_fingerprint(self, value: str) -> None:
        """Set a fingerprint that was computed earlier."""
        self._fingerprint = value

    def read_into(self, model: nn.Module, unit: str | None) -> None:
        """Load float32 weights into `model`: of the block `unit`, or with None of the layers outside of blocks.

        On the CPU, float32 weights in a mapped file are used directly, without a copy.
        """
        place, prefix = (model, "") if unit is None else (model.get_submodule(unit), f"{unit}.")
        weights = {
            name.removeprefix(prefix): self._state[name].to(self.device, torch.float32).contiguous()
            for name in self._names(unit)
        }
        place.load_state_dict(weights, strict=False, assign=True)
        for module in place.modules():
            for name, constant in module.named_buffers(recurse=False):
                setattr(module, name, constant.to(self.device))

    def forget(self, model: nn.Module, unit: str) -> None:
        """Move the weights of a block in `model` to the meta device, and free their mapped pages."""
        for module in model.get_submodule(unit).modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                empty = torch.empty_like(parameter, device="meta")
                module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)  # noqa: SLF001
        self.forget_pages(unit)
        release_freed()

    def forget_pages(self, unit: str | None) -> None:
        """Free the mapped pages of a unit; the system reads them from the file when they are needed."""
        forget_pages([self._state[name] for name in self._names(unit)])

    def _names(self, unit: str | None) -> list[str]:
        if unit is not None:
            return [name for name in self._state if name.startswith(f"{unit}.")]
        return [name for name in self._state if not lies_in(name, self._blocks)]

    @contextmanager
    def reading_blocks(self, model: nn.Module, blocks: Collection[str]) -> Iterator[None]:
        """Load the weights of each of `blocks` before its calls, and remove them afterwards, inside of the context."""

        def before(path: str) -> Callable[[nn.Module, object], None]:
            return lambda _module, _inputs: self.read_into(model, path)

        def after(path: str) -> Callable[[nn.Module, object, object], None]:
            return lambda _module, _inputs, _outputs: self.forget(model, path)

        handles = [model.get_submodule(path).register_forward_pre_hook(before(path), prepend=True) for path in blocks]
        handles += [model.get_submodule(path).register_forward_hook(after(path)) for path in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _refuse(self, unreal: Sequence[str]) -> None:
        """Raise an error that names tensors with values that are not finite, if there are any."""
        if unreal:
            names = [self._their_name[name] for name in unreal]
            raise ProtquantError(
                f"{self.source}: {len(unreal)} tensors hold NaN or infinity: {listed(names)}. The file is damaged or"
                " was saved from a failed training run; fetch it again."
            )


class _Checked(Mapping[str, Tensor]):
    """Tensors of a checkpoint, which are checked when they are read, and whose pages are freed afterwards."""

    def __init__(self, checkpoint: FloatCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._read: list[Tensor] = []

    def __getitem__(self, name: str) -> Tensor:
        if sum(tensor.nbytes for tensor in self._read) > _KEPT_BYTES:
            forget_pages(self._read)
            self._read = []
        tensor = self._checkpoint._state[name]  # noqa: SLF001
        if not _is_finite(tensor):
            self._checkpoint._refuse([name])  # noqa: SLF001
        self._read.append(tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint._state)  # noqa: SLF001

    def __len__(self) -> int:
        return len(self._checkpoint._state)  # noqa: SLF001


def _is_finite(tensor: Tensor) -> bool:
    # The extremes show any NaN or infinity, without a mask as large as the tensor.
    return bool(torch.stack(tensor.aminmax()).isfinite().all())
