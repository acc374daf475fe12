"""A checkpoint of few weights, laid out as the one of full size."""

from pathlib import Path

import pytest
from small_models import small_sizes as sizes

from protquant.bench.full_size.checkpoint import make_checkpoint
from protquant.models import ESMFoldConfig


@pytest.fixture(scope="session")
def small_sizes() -> ESMFoldConfig:
    return sizes({"dim": 40, "num_heads": 5, "ffn_dim": 160, "has_lm_head": False})


@pytest.fixture(scope="session")
def small_checkpoint(small_sizes: ESMFoldConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full_size") / "small"
    make_checkpoint(folder, small_sizes, shard_size=200_000)
    return folder
