"""QLLM's efficient error correction (Liu et al. 2024, section 3.3): low-rank additions trained block by block."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.assignments import Assignments
from protquant.quant.cache import inputs_hash
from protquant.quant.calibrate import calibrate
from protquant.quant.formats import Quantizer
from protquant.quant.layerwise import Call, record_calls, run_block
from protquant.quant.ranges import Calibration
from protquant.quant.settings import Count, Natural
from protquant.quant.steps.base import Examples, Tuning, register_step
from protquant.quant.tuning.learner import Learner
from protquant.quant.tuning.low_rank import LowRankStudent
from protquant.reporting.steps import Steps
from protquant.topology import find_chains

__all__ = ["LowRankCorrection", "block_error"]

log = logging.getLogger(__name__)

_Calls = list[list[Call]]


def block_error(found: Call, expected: Call) -> Tensor:
    """Return the sum over tensors of the squared error, divided by the mean square of the expected tensor."""
    errors = [
        (ours - theirs).square().mean() / theirs.square().mean().clamp(min=1e-12)
        for ours, theirs in zip(found, expected, strict=True)
        if isinstance(theirs, Tensor) and theirs.is_floating_point()
    ]
    return torch.stack(errors).sum()


@register_step("low_rank_correction")
@dataclass(frozen=True, kw_only=True)
class LowRankCorrection(Tuning):
    """Add a trained low-rank product B A to every weight, so that quantized blocks reproduce the float ones.

    Blocks are trained a few at a time, in their order. The teacher is a float block with inputs from float blocks, the
    student is the quantized block with inputs from quantized blocks. Then W + s B A becomes the weight and is quantized
    as usual. Training uses AdamW without weight decay, a rate that falls linearly to zero, and one sequence at a time.

    Attributes
    ----------
    rank : int
    alpha : float
        s = alpha / rank.
    blocks : int
        Number of blocks that are trained together.
    epochs : int
        Number of passes over the sequences.
    rate : float
        Initial learning rate.
    merged : bool
        Whether the student runs with Q(W + s B A), as the final model does, or with Q(W) + s B A as in the paper, where
        merging adds an error that training does not see.
    vectors : bool
        Whether to train biases and gains of LayerNorm as well, as the paper's code does.
    loss : str
        `block`: error of the output of the last block. `hidden` or `structure`: error of the output of the whole model
        (`Examples.objective`), with all blocks trained together.

    Raises
    ------
    ProtquantError
        For an invalid setting; `tune` raises it if the loss has no objective, or a checkpoint is from another training.
    """

    rank: Count = 4
    alpha: float = 1.0
    blocks: Count = 4
    epochs: Natural = 10
    rate: float = 5e-4
    merged: bool = True
    vectors: bool = False
    loss: Literal["block", "hidden", "structure"] = "block"

    def tune(self, model: nn.Module, assignments: Assignments, examples: Examples) -> None:
        training = model.training
        model.eval()
        quantizers = _quantizers(model, assignments, examples)
        fingerprint = self._fingerprint(model, assignments, examples)
        course = _Course(self, assignments, examples, quantizers, fingerprint)
        if self.loss != "block":
            course.train_whole(model)
        else:
            course.train_blocks(model)
        model.train(training)

    def _fingerprint(self, model: nn.Module, assignments: Assignments, examples: Examples) -> str:
        if examples.checkpoint is None:
            return ""
        formats = {a.site.name: str(a.format) for a in assignments}
        return inputs_hash({**self.to_config(), "formats": formats, "seed": examples.seed}, model, examples.sequences)


def _quantizers(model: nn.Module, assignments: Assignments, examples: Examples) -> dict[str, Quantizer]:
    """Return quantizers by activation site; static ranges cover all values of the float model (min-max)."""
    formats = {a.site.name: a.format for a in assignments if a.is_activation and a.format is not None}
    fitted = {name: assignments[name].quantizer for name in formats}
    static = [name for name, format_ in formats.items() if fitted[name] is None and format_.needs_statistics]
    statistics = calibrate(model, examples.sequences, examples.forward, sites=static) if static else {}
    device = next(model.parameters()).device
    quantizers = {}
    for name, format_ in formats.items():
        quantizer = fitted[name]
        if quantizer is None and (name in statistics or not format_.needs_statistics):
            quantizer = format_.for_activation(statistics.get(name), Calibration("minmax"))
        if quantizer is not None:
            quantizers[name] = quantizer.to(device)
    return quantizers


@dataclass
class _Course:
    """State of the training of one model."""

    step: LowRankCorrection
    assignments: Assignments
    examples: Examples
    quantizers: dict[str, Quantizer]
    fingerprint: str

    def train_blocks(self, model: nn.Module) -> None:
        chains = [chain for chain in find_chains(model) if any(self._is_quantized(block) for block in chain)]
        examples = self.examples
        with record_calls(model, [chain[0] for chain in chains]) as recorded:
            for sequence in examples.sequences:
                for calls in recorded.values():
                    calls.append([])
                with torch.no_grad():
                    examples.forward(model, sequence)
        for chain in chains:
            teacher = student = recorded.pop(chain[0])
            for start in range(0, len(chain), self.step.blocks):
                paths = chain[start : start + self.step.blocks]
                expected = teacher
                for path in paths:
                    expected = run_block(model, path, expected)
                student = self._train_group(model, paths, student, expected)
                teacher = expected

    def _train_group(self, model: nn.Module, paths: Sequence[str], calls: _Calls, expected: _Calls) -> _Calls:
        """Train consecutive blocks together; return the calls of the next block, computed by the quantized blocks."""
        copies: dict[str, Any] = {path: copy.deepcopy(model.get_submodule(path)) for path in paths}

        def run(call: Call) -> Call:
            for block in copies.values():
                call = block.next_inputs(call, block(*call))
            return call

        def loss(index: int) -> Tensor:
            pairs = zip(calls[index], expected[index], strict=True)
            errors = [block_error(run(call), target) for call, target in pairs]
            return torch.stack(errors).mean()

        self._train(model, copies, loss, paths[0] if len(paths) == 1 else f"{paths[0]}-{paths[-1].rpartition('.')[2]}")
        with torch.no_grad():
            return [[run(call) for call in sequence] for sequence in calls]

    def train_whole(self, model: nn.Module) -> None:
        examples, objective = self.examples, self.examples.objective
        if objective is None:
            raise ProtquantError(
                f"low_rank_correction: loss {self.step.loss!r} needs an objective; say 'block', or give one"
            )
        with torch.no_grad():
            answers = [examples.forward(model, sequence) for sequence in examples.sequences]
        student = copy.deepcopy(model)

        def loss(index: int) -> Tensor:
            return objective(examples.forward(student, examples.sequences[index]), answers[index], self.step.loss)

        self._train(model, {"": student}, loss, "model")

    def _train(self, model: nn.Module, copies: dict[str, nn.Module], loss: Callable[[int], Tensor], name: str) -> None:
        step, examples = self.step, self.examples
        student = LowRankStudent(
            copies,
            self.assignments,
            self.quantizers,
            rank=step.rank,
            scaling=step.alpha / step.rank,
            vectors=step.vectors,
            generator=torch.Generator().manual_seed(examples.seed),
        )
        student.set_merged(step.merged)
        groups = student.parameters()
        number = len(examples.sequences)
        rates = dict.fromkeys(groups, step.rate)
        total = step.epochs * number
        learner = Learner(groups, rates, 0.0, total, self._file(name), self.fingerprint, decay=_linear)
        bar = Steps(
            learner.order(number, examples.seed),
            desc=f"low_rank_correction {name}",
            initial=len(learner.losses),
            total=total,
            unit="step",
            disable=not examples.progress,
            leave=False,
        )
        with bar:
            for count, index in bar:
                learner.step(loss(index))
                if (count + 1) % number == 0:
                    bar.set_postfix(loss=f"{sum(learner.losses[-number:]) / number:.3g}")
                    learner.save()
        if learner.losses:
            first, last = (sum(losses) / number for losses in (learner.losses[:number], learner.losses[-number:]))
            log.info("low_rank_correction, %s: mean loss of the first epoch %.4g, of the last %.4g", name, first, last)
        student.export(model)
        student.set_merged(True)

    def _file(self, name: str) -> Path | None:
        """Return the checkpoint file of one training, next to the given file."""
        path = self.examples.checkpoint
        return None if path is None else path.with_name(f"{path.stem}.{name}{path.suffix}")

    def _is_quantized(self, block: str) -> bool:
        return any(a.format is not None and a.site.module.startswith(f"{block}.") for a in self.assignments)


def _linear(progress: float) -> float:
    return 1 - progress
