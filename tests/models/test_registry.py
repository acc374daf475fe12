import pytest

from protquant.checkpoints import KNOWN, Layout, find_known, register_checkpoint, register_layout
from protquant.models import ESM2, ESM2Config, ESMFoldConfig, register_model
from protquant.models.registry import MODELS, kind_of


def test_sizes_tell_the_kind_of_a_model():
    assert [kind_of(ESM2Config()), kind_of(ESMFoldConfig())] == ["esm2", "esmfold"]


def test_a_second_model_of_a_kind_or_of_the_same_sizes_is_refused():
    class Other(ESM2):
        config_type = ESMFoldConfig

    before = dict(MODELS)
    for kind, model in (("esm2", Other), ("mine", Other), ("mine", ESM2)):
        with pytest.raises(ValueError, match="the kind 'esm"):
            register_model(kind, model)
    assert before == MODELS


def test_a_second_checkpoint_or_layout_of_a_name_is_refused():
    known = find_known("esm2_t6_8M")
    assert known is not None
    with pytest.raises(ValueError, match="'esm2_t6_8M' is known already: facebook/"):
        register_checkpoint(known)
    with pytest.raises(ValueError, match="'esm' are read already"):
        register_layout(Layout("esm", dict, {}))
    assert len(KNOWN) == 7


def test_a_checkpoint_does_the_tasks_that_it_has_heads_for():
    small = {"num_layers": 1, "dim": 8, "num_heads": 2, "ffn_dim": 8}
    assert ESM2(ESM2Config(**small)).tasks == {"language", "contacts"}
    assert ESM2(ESM2Config(**small, has_lm_head=False)).tasks == {"contacts"}
    assert ESM2(ESM2Config(**small, has_contact_head=False)).tasks == {"language"}
