"""`protquant demo`: fold an example on integers, and compare float, simulations and integers on known chains."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.measuring.tasks import Outcome, StructureTask
from protquant.models import ESMFold
from protquant.options import DemoOptions, takes
from protquant.predicting.example import example_fasta
from protquant.predicting.fold_fasta import fold_fasta
from protquant.predicting.fold_run import FoldRun
from protquant.predicting.folding import check_folding_model, fold_within_memory
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.quant import Recipe, Report, load_recipe
from protquant.reporting.machine import describe_machine
from protquant.reporting.progress import note
from protquant.reporting.steps import Steps
from protquant.running.execution import Execution
from protquant.running.peak_memory import PeakMemory, peak_memory
from protquant.structures import Reference, load_references

__all__ = ["Demonstration", "demonstrate"]

_FOLDED = "w8a8-int8"
_SIMULATED = ("w8a8-uniform", "w8a8-pwlq", "w8a8-int8")
_CALIBRATION = 4
"""Number of calibration sequences, the shortest of the 12 that ship: all 12 take longer than the rest of the demo."""
_WARM_UP = 32
"""Length of the warm-up protein that each model folds before it is timed."""


@dataclass(frozen=True)
class Demonstration:
    """Results of the demo.

    Attributes
    ----------
    run : FoldRun
        The example, folded on integers.
    rows : list of dict
        One per model, float first: `recipe execution targets`, means of scores over the chains, effective bits,
        `weight_bytes`, `seconds` (of folding all chains), `times_as_fast` as float, and `peak_bytes`.
    targets : list of dict
        One per model and chain: scores and seconds.
    failures : list of dict
        `recipe`, `execution`, `target` and `error` of each failure; failures are not part of the means.
    notes : list of str
        Explanations of the measurements.
    """

    run: FoldRun
    rows: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a JSON document."""
        return {
            "fold": self.run.to_dict(),
            "comparison": self.rows,
            "targets": self.targets,
            "failures": self.failures,
            "notes": self.notes,
        }


@dataclass
class _Contender:
    """A model under a recipe, with its results."""

    recipe: Recipe
    model: ESMFold
    report: Report
    running: Execution
    outcome: Outcome = field(default_factory=Outcome)
    memory: PeakMemory | None = None

    @property
    def labels(self) -> dict[str, str]:
        return {"recipe": self.recipe.name, "execution": self.running.ran}


@takes(DemoOptions)
def demonstrate(options: DemoOptions) -> Demonstration:
    """Fold the example with the demo model on integers, and compare float, simulations and integers.

    Raises
    ------
    ProtquantError
        If the folder cannot be used, there are no chains, or the float model cannot fold any chain.
    """
    references = load_references(None, options.limit)
    sequences = calibration_sequences(limit=_CALIBRATION)
    run = _fold_example(options.output, sequences)
    task = StructureTask(references)
    contenders = list(_contenders(sequences))
    longest = max(references, key=len)
    steps = [(reference, contender) for reference in references for contender in contenders]
    for contender in contenders:
        # The warm-up does one-time work, such as packing weights, which is not timed.
        fold_within_memory(contender.model, [longest.sequence[:_WARM_UP]], ["warm-up"])
    for reference, contender in Steps(steps, desc="compare", unit="fold", disable=not sys.stderr.isatty()):
        _measure(task, contender, reference, with_memory=reference is longest)
    if not contenders[0].outcome.targets:
        raise ProtquantError(f"demo: {contenders[0].outcome.failures[0]['error']}")
    return Demonstration(
        run,
        _rows(task, contenders),
        [{**each.labels, **target} for each in contenders for target in each.outcome.targets],
        [{**each.labels, **failure} for each in contenders for failure in each.outcome.failures],
        _notes(contenders, references),
    )


def _fold_example(output: Path, sequences: list[str]) -> FoldRun:
    with TemporaryDirectory() as folder, example_fasta() as fasta:
        calibration = Path(folder) / "calibration.fasta"
        calibration.write_text("".join(f">{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
        return fold_fasta(fasta, output, "demo", _FOLDED, calibration=calibration)


def _contenders(sequences: list[str]) -> Iterator[_Contender]:
    """Yield the float model, the simulation of each recipe, and the integer model."""
    network = check_folding_model(load("demo"))
    recipes = [load_recipe("fp32"), *(replace(load_recipe(name), execution="simulate") for name in _SIMULATED)]
    for recipe in [*recipes, load_recipe(_FOLDED)]:
        model, report = quantize(network, recipe, sequences, execution="simulate", progress=sys.stderr.isatty())
        running = Execution(recipe, None, "auto", torch.device("cpu"))
        yield _Contender(recipe, running.convert(model), report, running)
        note(f"ready: {recipe.name}, {running.ran}")


def _measure(task: StructureTask, contender: _Contender, reference: Reference, with_memory: bool) -> None:
    """Fold one chain and score it; measure its time and, if asked for, its peak memory."""
    answers = []

    def predict() -> None:
        started = time.perf_counter()
        answers.append(task.predict(contender.model, reference))
        contender.outcome.seconds += time.perf_counter() - started

    try:
        if with_memory:
            contender.memory = peak_memory(predict)
        else:
            predict()
    except ProtquantError as error:
        contender.outcome.failures.append({"target": reference.name, "error": str(error)})
        return
    scores = task.score(reference, answers[0], is_float=contender.running.ran == "float")
    contender.outcome.targets.append({"target": reference.name, **scores})


def _rows(task: StructureTask, contenders: list[_Contender]) -> list[dict[str, Any]]:
    baseline = contenders[0].outcome
    return [
        {
            **each.labels,
            "targets": len(each.outcome.targets),
            **(task.means(each.outcome) if each.outcome.targets else {}),
            "weight_bits": each.report.weight_bits,
            "activation_bits": each.report.activation_bits,
            "weight_bytes": each.report.weight_bytes,
            "seconds": each.outcome.seconds,
            "times_as_fast": None if each.outcome.failures else baseline.seconds / each.outcome.seconds,
            "peak_bytes": None if each.memory is None else each.memory.bytes,
            "kernels": each.running.columns()["kernels"],
        }
        for each in contenders
    ]


def _notes(contenders: list[_Contender], references: list[Reference]) -> list[str]:
    longest = max(map(len, references))
    memory = contenders[0].memory
    how = "not measured" if memory is None else memory.note
    return [
        (
            f"Measured on {len(references)} of the 50 chains that ship with protquant: the first in their list, of "
            f"{min(map(len, references))} to {longest} residues. The demo model has memorized them: scores say what "
            "quantization takes away, not how well the model predicts. Ranges were calibrated on "
            f"{_CALIBRATION} of the 12 proteins that ship for it."
        ),
        (
            "Seconds: folding all these chains once, without scoring. All models fold a chain before the next one. "
            "This is one run, so small differences are noise. Simulations quantize and dequantize in float."
        ),
        f"Peak MB: memory beyond the weights while a chain of {longest} residues is folded ({how}).",
        "Weight MB: weights as codes, as `protquant quantize` saves them; a simulation computes with them in float.",
        f"{contenders[-1].recipe.name} on integers: {contenders[-1].running.summary()}.",
        (
            "Not measured: models of real size (see `protquant bench trunk` and docs/integer.md), GPUs, contacts, and "
            "proteins that the model does not know."
        ),
        str(describe_machine()),
    ]
