"""Gradient descent that can resume from a file with identical results."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.files import atomic_write

__all__ = ["Learner"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # The state of AdamW for a parameter.


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


class Learner:
    """AdamW without weight decay, with rates that fall to a share of their initial values.

    Parameters
    ----------
    groups : mapping
        Parameters by group and name.
    rates : mapping
        Initial learning rate by group.
    final : float
        Final rates, as a share of the initial ones.
    num_steps : int
        Total number of steps.
    checkpoint : Path or None
        File to write to, and to resume from if it exists.
    fingerprint : str
        Hash of all inputs of the training.
    decay : callable
        Schedule of the rates: maps the share of finished steps to a factor from 1 to 0; half a cosine by default.

    Attributes
    ----------
    losses : list of float
        Loss of every step so far.

    Raises
    ------
    ProtquantError
        If the checkpoint is damaged, or is from another training.
    """

    def __init__(
        self,
        groups: Mapping[str, Mapping[str, nn.Parameter]],
        rates: Mapping[str, float],
        final: float,
        num_steps: int,
        checkpoint: Path | None,
        fingerprint: str,
        decay: Callable[[float], float] = _half_cosine,
    ) -> None:
        self.num_steps, self._final, self._decay = num_steps, final, decay
        self._named = {f"{group}/{name}": p for group, named in groups.items() for name, p in named.items()}
        options = [
            {"params": list(named.values()), "lr": rates[group], "initial": rates[group]}
            for group, named in groups.items()
            if named
        ]
        self._optimizer = torch.optim.AdamW(options, weight_decay=0.0)
        self._checkpoint, self._fingerprint = checkpoint, fingerprint
        self.losses: list[float] = []
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)

    def order(self, num_sequences: int, seed: int) -> Iterator[tuple[int, int]]:
        """Yield the number of each remaining step and the index of its sequence; each epoch shuffles all sequences."""
        for step in range(len(self.losses), self.num_steps):
            epoch, position = divmod(step, num_sequences)
            # One generator per epoch, so that the order does not depend on where training resumed.
            generator = torch.Generator().manual_seed(seed + epoch)
            yield step, int(torch.randperm(num_sequences, generator=generator)[position])

    def step(self, loss: Tensor) -> None:
        """Take one optimizer step on `loss`."""
        value = loss.item()
        if not math.isfinite(value):
            raise ProtquantError(f"the loss of step {len(self.losses)} is {value}; lower the rates")
        falling = self._decay(len(self.losses) / self.num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial"] * (self._final + (1 - self._final) * falling)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.losses.append(value)

    def save(self) -> None:
        """Write the state to the checkpoint file, if there is one."""
        if self._checkpoint is None:
            return
        tensors: dict[str, Tensor] = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        for name, parameter in self._named.items():
            tensors[f"value/{name}"] = parameter.detach()
            state = self._optimizer.state.get(parameter, {})
            tensors |= {f"{moment}/{name}": state[moment] for moment in _MOMENTS if moment in state}
        data = save(
            {name: each.clone().contiguous() for name, each in tensors.items()}, {"training": self._fingerprint}
        )
        atomic_write(self._checkpoint, data)

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                training = (file.metadata() or {}).get("training")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise ProtquantError(f"checkpoint {path} cannot be read ({error}); remove it to start anew") from None
        if training != self._fingerprint:
            raise ProtquantError(
                f"checkpoint {path} is of a training with other settings, weights or sequences; "
                "name another file, or remove it to start anew"
            )
        self.losses = tensors["losses"].tolist()
        for name, parameter in self._named.items():
            with torch.no_grad():
                parameter.copy_(tensors[f"value/{name}"])
            known = {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS if f"{moment}/{name}" in tensors}
            if known:
                # The count of steps stays on the CPU, where AdamW keeps it.
                count = known.pop("step")
                moved = {moment: tensor.to(parameter.device) for moment, tensor in known.items()}
                self._optimizer.state[parameter] = {"step": count, **moved}
