"""Gradient descent that can be stopped, and goes on from a file as if it had not been."""

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

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # What AdamW remembers of a parameter.


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


class Learner:
    """AdamW without weight decay, whose rates fall to a share of themselves.

    Parameters
    ----------
    groups : mapping
        Parameters by name, in groups.
    rates : mapping
        Rate at the start, by group.
    final : float
        What share of the rates is left at the end.
    num_steps : int
        Number of steps to take in all.
    checkpoint : Path or None
        File to go on from, where it is there, and to write to.
    fingerprint : str
        Of all that the training depends on.
    decay : callable
        How rates fall, from 1 to 0, over the share of the steps that are taken; half a cosine by default.

    Attributes
    ----------
    losses : list of float
        Of every step until now.

    Raises
    ------
    ProtquantError
        If the checkpoint is damaged, or of another training.
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
        """Numbers of the steps that are left, and which sequence is whose turn: all of them by turns, shuffled."""
        for step in range(len(self.losses), self.num_steps):
            epoch, turn = divmod(step, num_sequences)
            # A generator per epoch: what is drawn does not depend on where training began.
            generator = torch.Generator().manual_seed(seed + epoch)
            yield step, int(torch.randperm(num_sequences, generator=generator)[turn])

    def step(self, loss: Tensor) -> None:
        """Follow the slope of `loss`."""
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
        """Write all that is needed to go on, if a checkpoint was asked for."""
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
