"""The tables of renaming cover every tensor of every layout, both ways."""

import pytest
import torch
from torch import nn

from protquant.checkpoints.names import (
    FAIR_ESM_ESM2,
    FAIR_ESM_ESMFOLD,
    HUGGING_FACE_ESM2,
    HUGGING_FACE_ESMFOLD,
    RenameTable,
)
from protquant.models import ESM2, ESM2Config, ESMFold, ESMFoldConfig, TrunkConfig

TABLES = {
    "hugging_face_esm2": (HUGGING_FACE_ESM2, ESM2Config()),
    "fair_esm_esm2": (FAIR_ESM_ESM2, ESM2Config()),
    "hugging_face_esmfold": (
        HUGGING_FACE_ESMFOLD,
        ESMFoldConfig(lm=ESM2Config(has_lm_head=False), trunk=TrunkConfig(num_blocks=11)),
    ),
    "fair_esm_esmfold": (FAIR_ESM_ESMFOLD, ESMFoldConfig(lm=ESM2Config(), trunk=TrunkConfig(num_blocks=11))),
}


def empty(config: ESM2Config | ESMFoldConfig) -> nn.Module:
    with torch.device("meta"):
        return ESM2(config) if isinstance(config, ESM2Config) else ESMFold(config)


@pytest.mark.parametrize(("table", "config"), TABLES.values(), ids=TABLES)
def test_every_tensor_has_one_name_there_and_back(table: RenameTable, config: ESM2Config | ESMFoldConfig) -> None:
    ours = list(empty(config).state_dict())
    theirs = [table.to_theirs(name) for name in ours]
    assert None not in theirs
    assert len(set(theirs)) == len(ours)
    assert [table.to_ours(name) for name in theirs if name] == ours


@pytest.mark.parametrize("name", ["", "weight", "esm.encoder.layer.x.LayerNorm.weight", "lm_head.dense.weight.extra"])
def test_unknown_names_have_no_counterpart(name: str) -> None:
    assert HUGGING_FACE_ESM2.to_ours(name) is None
