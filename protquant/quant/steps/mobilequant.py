"""MobileQuant (Tan et al. 2024): scales, clipping and static ranges of all layers are trained together, end to end."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.quant.assignments import Assignments
from protquant.quant.cache import inputs_hash
from protquant.quant.calibrate import calibrate
from protquant.quant.layerwise import sweep
from protquant.quant.ranges import Calibration, RangeRule
from protquant.quant.settings import Natural, Rate, Share
from protquant.quant.steps.base import Examples, Tuning, register_step
from protquant.quant.steps.smoothquant import SmoothQuant
from protquant.quant.transforms import LinkLayers
from protquant.quant.tuning import Learner, Student, foldable_links
from protquant.reporting.steps import Steps

__all__ = ["MobileQuant"]

log = logging.getLogger(__name__)


@register_step("mobilequant")
@dataclass(frozen=True, kw_only=True)
class MobileQuant(Tuning):
    """Train scales and grids of all layers so that the quantized model reproduces the outputs of the float model.

    Trained are scales per channel that leave the float function unchanged (LayerNorm to its readers, linear to linear,
    queries to keys), the clipping of the grids of weights, and step and zero point of the static ranges of activations.
    Afterwards scales are folded into the weights, and the grids are frozen.

    Attributes
    ----------
    loss : str
        Loss between the outputs of the quantized and the float model. `hidden`: squared error of the hidden states
        after the last layer and its norm. `structure`, for folding models: frame aligned point error and distogram.
    epochs : int
        Number of passes over the sequences; each step uses one sequence.
    alpha : float or None
        `alpha` of SmoothQuant, which sets the initial scales of all links that can be folded. None: all scales are 1 at
        first.
    initial_range : str
        Rule for the initial ranges, see `protquant.quant.Calibration`.
    scale_rate, clipping_rate, range_rate : float
        Initial learning rates. The rate of ranges is relative to the first step or the number of codes; the paper's is
        absolute. The paper's rates, 1e-3, 1e-2 and 1e-6, are for 60,000 steps; here there are hundreds. On ESM-2 8M
        (W4A8, 10 epochs of 12 sequences) the loss fell from 0.024 to 0.0169 with 1e-3 for scales and ranges, to 0.0155
        with 1e-2 for scales, and to 0.0164 with 1e-2 for ranges.
    final_rate : float
        Final learning rate of the cosine schedule, as a share of the initial one.
    """

    one_range = True

    loss: Literal["hidden", "structure"] = "hidden"
    epochs: Natural = 20
    alpha: Share | None = 0.5
    initial_range: RangeRule = "minmax"
    scale_rate: Rate = 1e-2
    clipping_rate: Rate = 1e-2
    range_rate: Rate = 1e-2
    final_rate: Rate = 0.1

    def tune(self, model: nn.Module, assignments: Assignments, examples: Examples) -> None:
        if examples.objective is None:
            raise ProtquantError("mobilequant needs an objective: what to compare of a model's answers")
        # Hash the given weights: after smoothing, last digits could differ from machine to machine.
        settings = {**self.to_config(), "formats": {a.site.name: str(a.format) for a in assignments}}
        settings["seed"] = examples.seed
        fingerprint = inputs_hash(settings, model, examples.sequences) if examples.checkpoint else ""
        with _frozen(model):
            with torch.no_grad():
                answers = [examples.forward(model, sequence) for sequence in examples.sequences]
            self._smooth(model, assignments, examples)
            statistics = calibrate(model, examples.sequences, examples.forward, progress=examples.progress)
            student = Student(model, examples.forward, assignments, statistics, Calibration(self.initial_range))
            groups = student.parameters()
            rates = {"scales": self.scale_rate, "clipping": self.clipping_rate, "ranges": self.range_rate}
            num_sequences = len(examples.sequences)
            num_steps = self.epochs * num_sequences
            learner = Learner(groups, rates, self.final_rate, num_steps, examples.checkpoint, fingerprint)
            bar = Steps(
                learner.order(num_sequences, examples.seed),
                desc="mobilequant",
                initial=len(learner.losses),
                total=num_steps,
                unit="step",
                disable=not examples.progress,
            )
            with student.hooked(), bar:
                for step, index in bar:
                    output = student(examples.sequences[index])
                    learner.step(examples.objective(output, answers[index], self.loss))
                    student.truncate()
                    if (step + 1) % num_sequences == 0:
                        epoch = learner.losses[-num_sequences:]
                        bar.set_postfix(loss=f"{sum(epoch) / num_sequences:.3g}")
                        learner.save()
            if learner.losses:
                first, last = learner.losses[:num_sequences], learner.losses[-num_sequences:]
                means = (sum(losses) / len(losses) for losses in (first, last))
                log.info("mobilequant: mean loss of the first epoch %.4g, of the last %.4g", *means)
            student.export(assignments, "learned by mobilequant")

    def _smooth(self, model: nn.Module, assignments: Assignments, examples: Examples) -> None:
        if self.alpha is None:
            return
        smoothing = SmoothQuant(alpha=self.alpha, everywhere=True)
        links = foldable_links(model, assignments)
        if not links:
            return
        groups = [link.readers for link in links]
        for stage in sweep(model, examples.sequences, examples.forward, groups, label="smooth"):
            for link in links:
                if link.readers[0] in stage.evidence:
                    smoothing.apply(LinkLayers(model, link), stage.evidence[link.readers[0]], assignments)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Freeze the parameters of the model, and switch dropout off."""
    training = model.training
    learned = {parameter for parameter in model.parameters() if parameter.requires_grad}
    model.eval()
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter in learned:
            parameter.requires_grad_(True)
