"""Compare all number formats: bits, errors and levels."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.files import prepare_folder
from protquant.measuring.level_plot import LevelRow, Panel, level_figure
from protquant.predicting.plots import save_figure
from protquant.quant import FORMATS, Calibration, Format, Observer, Quantizer, StaticQuantizer
from protquant.quant.plugins import load_plugins

__all__ = ["SAMPLES", "FittedFormat", "draw_levels", "fit_format", "format_table"]

# The token size of LightNobel, and a typical size of a matrix.
_TOKEN = 128
_WEIGHT = (1024, 1024)
_NUM_TOKENS = 256
_SEED = 7
# More levels than a figure can show.
_MOST_DRAWN = 600


def gaussian_sample() -> Float[Tensor, "tokens c"]:
    """Return tokens of 128 normally distributed values, similar to rows of weights."""
    return torch.randn(_NUM_TOKENS, _TOKEN, generator=torch.Generator().manual_seed(_SEED))


def heavy_tailed_sample() -> Float[Tensor, "tokens c"]:
    """Return tokens of 128 log-normal values from -1 up: one-sided with a heavy tail, like the pair representation."""
    return (1.3 * gaussian_sample()).exp() - 1


SAMPLES = {"gaussian": gaussian_sample, "heavy_tailed": heavy_tailed_sample}


@dataclass(frozen=True)
class FittedFormat:
    """A format fitted to rows of a weight and to tokens of an activation; None if it is not for one of them."""

    format_: Format
    weight: StaticQuantizer | None
    activation: Quantizer | None

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer for a weight if there is one, otherwise the one for an activation."""
        quantizer = self.weight or self.activation
        assert quantizer is not None
        return quantizer


def fit_format(format_: Format, x: Float[Tensor, "n c"]) -> FittedFormat:
    """Fit a format to rows of a weight and to an activation, if it supports them."""
    weight: StaticQuantizer | None = None
    activation: Quantizer | None = None
    with suppress(ProtquantError):
        weight = format_.for_weight(x)
    with suppress(ProtquantError):
        observer = Observer("sample")
        observer.update(x)
        activation = format_.for_activation(observer.statistics(), Calibration("minmax"))
    return FittedFormat(format_, weight, activation)


def _variants() -> Iterator[Format]:
    load_plugins()
    for _, cls in sorted(FORMATS.items()):
        yield from cls.variants()


def _snr_db(x: Tensor, y: Tensor) -> float:
    noise = (y - x).double().square().sum().item()
    return math.inf if noise == 0 else 10 * math.log10(x.double().square().sum().item() / noise)


def format_table() -> list[dict[str, Any]]:
    """Return one row for each format and each of its typical settings.

    Returns
    -------
    list of dict
        `format label settings bits levels weight_bits activation_bits snr_gaussian_db snr_heavy_tailed_db`.
        `weight_bits` and `activation_bits` are per element with scales, zero points and outliers, of a weight of
        1,024 x 1,024 and of tokens of 128 channels; None if the format does not support them. Frozen scales of
        activations are not counted, because all inputs share them. The signal-to-noise ratios, in dB, are for samples
        in rows of 128: a normal one, and a one-sided heavy-tailed one.
    """
    samples = {name: sample() for name, sample in SAMPLES.items()}
    rows = []
    for format_ in _variants():
        example = fit_format(format_, torch.zeros(_WEIGHT))
        weight, activation = example.weight, example.activation
        snr = {f"snr_{name}_db": _snr_db(x, fit_format(format_, x).quantizer(x)) for name, x in samples.items()}
        rows.append(
            {
                "format": format_.name,
                "label": format_.label,
                "settings": format_.to_config(),
                "bits": format_.code_bits,
                "levels": format_.num_levels,
                "weight_bits": None if weight is None else weight.code_bits + weight.scale_bits() / math.prod(_WEIGHT),
                "activation_bits": None if activation is None else activation.tensor_bits((1, _TOKEN)) / _TOKEN,
                **snr,
            }
        )
    return rows


def draw_levels(path: Path) -> Path:
    """Draw the levels of every format with one scale, fitted to one token of each sample, as PNG.

    Raises
    ------
    ProtquantError
        If `path` does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise ProtquantError(f"{path}: a picture ends in .png")
    prepare_folder(path.parent)
    panels = []
    titles = {"gaussian": "a normal token", "heavy_tailed": "a one-sided token with a heavy tail"}
    for name, sample in SAMPLES.items():
        token = sample()[:1]
        panels.append(Panel(titles[name], token.flatten().tolist(), name != "gaussian", list(_rows(token))))
    return save_figure(level_figure(panels), path)


def _rows(token: Float[Tensor, "1 c"]) -> Iterator[LevelRow]:
    """Return rows in descending bits, one of those that are equal on one token, such as per channel and per token."""
    drawn: list[Tensor] = []
    for format_ in sorted(_variants(), key=lambda format_: -format_.code_bits):
        quantizer = fit_format(format_, token).quantizer
        levels = quantizer.freeze(token).levels()
        if levels is None or len(levels) > _MOST_DRAWN:
            continue
        encoded, decoded = quantizer.encode(token), quantizer(token)
        outliers = [] if encoded.indices is None else decoded.gather(-1, encoded.indices.long()).flatten().tolist()
        if not outliers and any(torch.equal(levels, other) for other in drawn):
            continue
        drawn.append(levels)
        yield LevelRow(format_.label, format_.code_bits, levels.tolist(), outliers, _snr_db(token, decoded))
