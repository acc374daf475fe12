import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.predicting import fold, fold_batch, folding
from protquant.predicting.folding import fold_within_memory
from protquant.proteins import Prediction

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "GSHMLED", "MKTAYIAKQR:GAVLIDE", "WACDEFGHIKLMNPQRSTVY"]
CPU_ALLOCATION_FAILURE = (
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "34359738368 bytes. Error code 12 (Cannot allocate memory)"
)


def assert_same(first: Prediction, second: Prediction):
    np.testing.assert_allclose(first.atoms.coord, second.atoms.coord, atol=1e-3)
    np.testing.assert_allclose(first.plddt, second.plddt, atol=1e-2)
    np.testing.assert_allclose(first.pae, second.pae, atol=1e-2)
    np.testing.assert_allclose(first.iptm, second.iptm, atol=1e-4)  # not a number in both, of single chains


def test_folding_in_a_batch_changes_nothing(esmfold: ESMFold):
    for sequence, batched in zip(SEQUENCES, fold_batch(esmfold, SEQUENCES, list("abcd")), strict=True):
        assert_same(fold(esmfold, sequence), batched)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_chunking_changes_nothing(esmfold: ESMFold, chunk_size: int):
    assert_same(fold(esmfold, SEQUENCES[0], chunk_size=chunk_size), fold(esmfold, SEQUENCES[0]))


def test_recycling_changes_the_prediction(esmfold: ESMFold):
    none, two = (fold(esmfold, SEQUENCES[0], num_recycles=count) for count in (0, 2))
    assert (none.recycles, two.recycles) == (0, 2)
    assert np.abs(none.atoms.coord - two.atoms.coord).max() > 0.1


def test_a_complex_loses_its_linker_and_numbers_each_chain_from_one(esmfold: ESMFold):
    prediction = fold(esmfold, "MKTAYIAKQR:GAVLIDE:MK")
    atoms = prediction.atoms
    found = {str(chain): list(dict.fromkeys(atoms.res_id[atoms.chain_id == chain].tolist())) for chain in "ABC"}
    assert found == {"A": list(range(1, 11)), "B": list(range(1, 8)), "C": [1, 2]}
    assert set(atoms.chain_id) == {"A", "B", "C"}
    assert prediction.plddt.shape == (19,)
    assert prediction.pae is not None
    assert prediction.pae.shape == (19, 19)


def test_lower_case_and_rare_residues_fold_as_their_substitutes(esmfold: ESMFold):
    assert_same(fold(esmfold, "mkuobzj*"), fold(esmfold, "MKCKDEL"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_folds_with_the_structure_module_in_float32(esmfold_checkpoint, dtype: torch.dtype):
    model = folding_model(esmfold_checkpoint, dtype)
    assert model.trunk.blocks[0].tri_attn_start.q_proj.weight.dtype == dtype
    assert {parameter.dtype for parameter in model.trunk.structure_module.parameters()} == {torch.float32}
    prediction = fold(model, SEQUENCES[0])
    assert np.isfinite(prediction.atoms.coord).all()
    # Not bent by rounding: neighbors in the chain keep the bond lengths of ideal geometry.
    atoms = prediction.atoms
    bonds = np.linalg.norm(atoms.coord[atoms.atom_name == "CA"] - atoms.coord[atoms.atom_name == "N"], axis=1)
    np.testing.assert_allclose(bonds, 1.46, atol=0.02)


def folding_model(checkpoint, dtype: torch.dtype) -> ESMFold:
    model = load(checkpoint, dtype=dtype)
    assert isinstance(model, ESMFold)
    return model


def test_a_language_model_is_told_from_a_folding_model(esmfold: ESMFold):
    with pytest.raises(ProtquantError, match="is a language model"):
        fold(esmfold.lm, "MKT")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"num_recycles": -1}, {"chunk_size": 0}])
def test_senseless_numbers_are_refused(esmfold: ESMFold, options: dict[str, int]):
    with pytest.raises(ProtquantError, match="give"):
        fold(esmfold, "MKT", **options)


class RunsOutOfMemory:
    """Stands for `fold_batch`: fails above some rows, remembers the chunk sizes it was called with."""

    def __init__(self, error: Exception, most_rows: int) -> None:
        self.error, self.most_rows, self.tried = error, most_rows, []

    def __call__(self, model, sequences, names, headers=None, *, chunk_size=None, **settings):
        self.tried.append(chunk_size)
        if chunk_size is None or chunk_size > self.most_rows:
            raise self.error
        return fold_batch(model, sequences, names, headers, chunk_size=chunk_size, **settings)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_ALLOCATION_FAILURE), MemoryError()]
)
def test_running_out_of_memory_halves_the_chunks_until_it_fits(esmfold, monkeypatch, caplog, error: Exception):
    stub = RunsOutOfMemory(error, most_rows=6)
    monkeypatch.setattr(folding, "fold_batch", stub)
    prediction = fold_within_memory(esmfold, [SEQUENCES[0]], ["a"])[0]
    assert stub.tried == [None, 11, 5]
    assert [re.findall("chunks of ([0-9]+)", message) for message in caplog.messages] == [["11"], ["5"]]
    assert_same(prediction, fold_batch(esmfold, [SEQUENCES[0]], ["a"])[0])


def test_memory_that_never_suffices_is_an_error_with_a_remedy(esmfold, monkeypatch):
    stub = RunsOutOfMemory(torch.OutOfMemoryError("CUDA out of memory"), most_rows=0)
    monkeypatch.setattr(folding, "fold_batch", stub)
    with pytest.raises(ProtquantError, match="1 x 7 residues ran out of memory in chunks of 1; use a machine"):
        fold_within_memory(esmfold, ["GSHMLED"], ["a"])
    with pytest.raises(ProtquantError, match="chunks of 4; leave --chunk-size out"):
        fold_within_memory(esmfold, ["GSHMLED"], ["a"], chunk_size=4)


def test_other_errors_of_torch_are_not_taken_for_lack_of_memory(esmfold, monkeypatch):
    stub = RunsOutOfMemory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), most_rows=100)
    monkeypatch.setattr(folding, "fold_batch", stub)
    with pytest.raises(RuntimeError, match="mat1"):
        fold_within_memory(esmfold, ["GSHMLED"], ["a"])
    assert stub.tried == [None]


def test_folding_first_does_not_spoil_training_after():
    code = (
        "import torch; from protquant.models import *; from protquant.predicting import fold;"
        "lm = ESM2Config(num_layers=1, dim=8, num_heads=2, ffn_dim=8);"
        "sm = StructureModuleConfig(single_dim=8, pair_dim=8, ipa_dim=4, num_heads=2, resnet_dim=8, num_layers=2);"
        "trunk = TrunkConfig(1, 8, 8, 4, 4, structure_module=sm);"
        "model = ESMFold(ESMFoldConfig(lm=lm, trunk=trunk)); fold(model.eval(), 'MKTAY');"
        "model.train()(encode_complexes(['MKTAY']), num_recycles=0).positions.sum().backward()"
    )
    # A process of its own: the constants are cached at first use.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
