"""A small encoder with outlier channels, sequences for it, and what calibration saw of them."""

import pytest
import torch
from torch import Tensor

from protquant.models.alphabet import tokenize
from protquant.models.esm2 import ESM2, ESM2Config
from protquant.quant import Statistics, calibrate

SEQUENCES = ["MKTVRQERLKSIVRILERSKEPVSGAQLAEELSVSRQ", "GSHMLEDPVDAFLQAGKVTN", "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFES"]


@pytest.fixture(scope="session")
def encoder() -> ESM2:
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=2, dim=32, num_heads=4, ffn_dim=64)).eval()
    with torch.no_grad():
        # A channel that leads, as in every trained ESM-2, and gains that are not all one.
        model.embedding.weight[:, 5] += 30
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="session")
def tokens() -> list[Tensor]:
    return [tokenize([sequence]) for sequence in SEQUENCES]


@pytest.fixture(scope="session")
def statistics(encoder: ESM2, tokens: list[Tensor]) -> dict[str, Statistics]:
    return calibrate(encoder, tokens)
