"""A float checkpoint whose tensors are mapped from its files: loaded as a whole, or one part of the model at a time."""

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
        Makes the model; called with the meta device as the default, so that it allocates nothing.
    state : dict
        The checkpoint's tensors by the checkpoint's names, without those that may be ignored. Readers map them from
        their files where the file can be mapped, so that they take no memory until they are read.
    source : str
        Where the checkpoint is, for messages and for the model's `source`.
    table : RenameTable, optional
        From the checkpoint's names to ours; by default they are ours.
    known_fingerprint : str
        Spares computing the model's fingerprint.
    files : sequence of Path
        The files that the tensors and sizes come from.

    Attributes
    ----------
    device : torch.device
        Device that `read_into` puts weights on: the CPU, until another one is set.

    Raises
    ------
    ProtquantError
        If tensors are missing, surplus, or of another shape or kind; names them as the checkpoint does.
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
            # A pickle may say that many elements lie in one place.
            if tensor.nbytes > tensor.untyped_storage().nbytes():
                raise ProtquantError(
                    f"{source}: {their_name[name]} is said to have {tensor.nbytes} bytes, and there are"
                    f" {tensor.untyped_storage().nbytes()} in the file; save the model again."
                )
        self._their_name = their_name
        self._fingerprint = known_fingerprint
        self.device = torch.device("cpu")

    def skeleton(self) -> ProteinModel:
        """Return the model without weights: its parameters are on the meta device. In evaluation mode."""
        with torch.device("meta"):
            model = self._make()
        model.source, model.fingerprint = self.source, self._fingerprint
        return model.eval()

    def load(self) -> ProteinModel:
        """Return the model in float32 on the CPU, in evaluation mode. The checkpoint cannot be used any more.

        Raises
        ------
        ProtquantError
            If a weight is not finite.
        """
        model = self.skeleton()
        places, unreal = {}, []
        for name in list(self._state):
            # One by one, so that a half-precision checkpoint is never held twice.
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

        Every weight is read once; the result is kept.

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
        """Whether the fingerprint need not be computed."""
        return bool(self._fingerprint)

    def know_fingerprint(self, value: str) -> None:
        """Take a fingerprint that was computed for this checkpoint before."""
        self._fingerprint = value

    def read_into(self, model: nn.Module, unit: str | None) -> None:
        """Put float32 weights into `model`: those of the block `unit`, or those outside of blocks for None.

        On the CPU, weights that are float32 in a mapped file are used where they lie, and take no memory of their own.
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
        """Take the weights of a block out of `model`, and their pages out of memory."""
        for module in model.get_submodule(unit).modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                empty = torch.empty_like(parameter, device="meta")
                module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)  # noqa: SLF001
        self.forget_pages(unit)
        release_freed()

    def forget_pages(self, unit: str | None) -> None:
        """Let the system take back the memory of the mapped tensors of a unit; they are read again when needed."""
        forget_pages([self._state[name] for name in self._names(unit)])

    def _names(self, unit: str | None) -> list[str]:
        if unit is not None:
            return [name for name in self._state if name.startswith(f"{unit}.")]
        return [name for name in self._state if not lies_in(name, self._blocks)]

    @contextmanager
    def reading_blocks(self, model: nn.Module, blocks: Collection[str]) -> Iterator[None]:
        """Let `model` run while its `blocks` have weights only during their calls."""

        def before(path: str) -> Callable[[nn.Module, object], None]:
            return lambda _module, _inputs: self.read_into(model, path)

        def behind(path: str) -> Callable[[nn.Module, object, object], None]:
            return lambda _module, _inputs, _outputs: self.forget(model, path)

        handles = [model.get_submodule(path).register_forward_pre_hook(before(path), prepend=True) for path in blocks]
        handles += [model.get_submodule(path).register_forward_hook(behind(path)) for path in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _refuse(self, unreal: Sequence[str]) -> None:
        """Refuse weights that are not finite."""
        if unreal:
            names = [self._their_name[name] for name in unreal]
            raise ProtquantError(
                f"{self.source}: {len(unreal)} tensors hold NaN or infinity: {listed(names)}. The file is damaged or"
                " was saved from a failed training run; fetch it again."
            )


class _Checked(Mapping[str, Tensor]):
    """Tensors of a checkpoint that are checked when they are read, and whose pages are given back afterwards."""

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
    # The extremes tell of any NaN or infinity, without a mask as large as the tensor.
    return bool(torch.stack(tensor.aminmax()).isfinite().all())
