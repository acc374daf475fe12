"""A checkpoint of few weights, laid out as the one of full size."""

from pathlib import Path

import pytest

from protquant.bench.full_size.checkpoint import make_checkpoint
from protquant.models import ESM2Config, ESMFoldConfig, StructureModuleConfig, TrunkConfig


@pytest.fixture(scope="session")
def small_sizes() -> ESMFoldConfig:
    structure_module = StructureModuleConfig(
        single_dim=32, pair_dim=16, ipa_dim=8, num_heads=2, resnet_dim=16, num_layers=2
    )
    trunk = TrunkConfig(
        num_blocks=2,
        single_dim=32,
        pair_dim=16,
        single_head_dim=8,
        pair_head_dim=8,
        position_bins=8,
        structure_module=structure_module,
    )
    lm = ESM2Config(num_layers=2, dim=40, num_heads=5, ffn_dim=160, has_lm_head=False)
    return ESMFoldConfig(lm=lm, trunk=trunk, plddt_hidden_dim=16)


@pytest.fixture(scope="session")
def small_checkpoint(small_sizes: ESMFoldConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full_size") / "small"
    make_checkpoint(folder, small_sizes, shard_size=200_000)
    return folder
