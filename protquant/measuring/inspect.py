"""Inspect the effect of a recipe on a model: sites, formats, effective bits, memory."""

from typing import Any

import torch

from protquant.checkpoints import load, skeleton
from protquant.models import ESMFold
from protquant.options import InspectOptions, takes
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.preparing.quantize_checkpoint import choose_recipe
from protquant.quant import Report, needs_sequences
from protquant.running.devices import pick_device
from protquant.running.execution import Execution
from protquant.running.memory import memory_budget

__all__ = ["inspect_model"]

_CPU = torch.device("cpu")


@takes(InspectOptions)
def inspect_model(options: InspectOptions) -> tuple[Report, dict[str, Any]]:
    """Quantize a model and report on every site, or return the saved report of a quantized checkpoint.

    Returns
    -------
    report : Report
    document : dict
        The same as one JSON document: `model recipe weight_bits activation_bits weight_bytes float_weight_bytes
        parameters memory execution sites`; memory is the peak of a process that folds, in bytes by length,
        without chunks, empty for a language model; execution says of every part whether it runs on
        integers, by what, or why not: none where the model is simulated.
    """
    recipe, saved = choose_recipe(options.model, options.quant)
    running = Execution(recipe, options.execution, options.backend, pick_device(cpu_only=True))
    sizes, memory = skeleton(options.model), {}
    if isinstance(sizes, ESMFold):
        room = memory_budget(sizes, recipe, running, device=_CPU, dtype=torch.float32, max_memory=None)
        memory = {str(length): room.at(length).total for length in options.lengths}
    network = load(options.model)
    if saved is not None:
        quantized, report = network, saved.report
    else:
        sequences = calibration_sequences(options.calibration) if needs_sequences(network, recipe) else []
        quantized, report = quantize(network, recipe, sequences, execution="simulate")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    running.convert(quantized)
    document = {
        "model": options.model,
        "recipe": recipe.to_dict(),
        "parameters": parameters,
        "weight_bits": report.weight_bits,
        "activation_bits": report.activation_bits,
        "weight_bytes": report.weight_bytes,
        "float_weight_bytes": report.float_weight_bytes,
        "memory": memory,
        "execution": running.to_dict(),
        "sites": report.to_frame().astype(object).where(lambda f: f.notna(), None).to_dict("records"),
    }
    return report, document
