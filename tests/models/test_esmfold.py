"""Our ESMFold gives what transformers' gives on the same weights."""

import copy

import pytest
import torch
from transformers import EsmForProteinFolding
from transformers.models.esm.openfold_utils import atom14_to_atom37, compute_tm

from protquant.checkpoints.float_checkpoint import FloatCheckpoint
from protquant.checkpoints.names import HUGGING_FACE_ESMFOLD
from protquant.models import (
    ESM2Config,
    ESMFold,
    ESMFoldConfig,
    StructureModuleConfig,
    TrunkConfig,
    encode_complexes,
)

CONFIG = ESMFoldConfig(
    lm=ESM2Config(num_layers=3, dim=40, num_heads=5, ffn_dim=160, has_lm_head=False),
    trunk=TrunkConfig(
        num_blocks=2,
        single_dim=32,
        pair_dim=16,
        single_head_dim=8,
        pair_head_dim=4,
        position_bins=6,
        structure_module=StructureModuleConfig(
            single_dim=24,
            pair_dim=12,
            ipa_dim=8,
            num_heads=3,
            num_qk_points=2,
            num_v_points=5,
            resnet_dim=16,
            num_layers=3,
            num_transition_layers=2,
        ),
    ),
    plddt_hidden_dim=20,
)
RESIDUES = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPD"
BATCHES = {
    "1": [RESIDUES[:1]],
    "7": [RESIDUES[:7]],
    "64": [RESIDUES],
    "padded": [RESIDUES[:13], RESIDUES[:1], "ACDXBUZO" + RESIDUES[:20], RESIDUES[::-1][:40]],
    "complex": ["MKTAYIAK:QRQISF", "GSHMKT"],
}


@pytest.fixture(scope="module")
def model(hugging_face_esmfold: EsmForProteinFolding) -> ESMFold:
    table = HUGGING_FACE_ESMFOLD
    state = {name: tensor for name, tensor in hugging_face_esmfold.state_dict().items() if table.to_ours(name)}
    return FloatCheckpoint(lambda: ESMFold(CONFIG), state, "reference", table).load()


@torch.no_grad()
@pytest.mark.parametrize("num_recycles", [0, 3])
@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("sequences", BATCHES.values(), ids=BATCHES)
def test_equals_transformers(
    model: ESMFold,
    hugging_face_esmfold: EsmForProteinFolding,
    sequences: list[str],
    chunk_size: int | None,
    num_recycles: int,
) -> None:
    batch = encode_complexes(sequences)
    hugging_face_esmfold.trunk.set_chunk_size(chunk_size)
    expected = hugging_face_esmfold(
        batch.aatype, batch.mask.long(), position_ids=batch.residue_index, num_recycles=num_recycles
    )
    actual = model(batch, num_recycles, chunk_size)

    valid = batch.mask
    pairs = valid[:, :, None] & valid[:, None, :]
    positions = atom14_to_atom37(expected.positions[-1], expected)
    assert positions[valid].abs().max() > 5  # angstrom: the model moves the residues away from the origin
    torch.testing.assert_close(actual.positions[valid], positions[valid], atol=1e-3, rtol=0)
    torch.testing.assert_close(actual.plddt[valid], 100 * expected.plddt[valid], atol=1e-3, rtol=0)
    torch.testing.assert_close(actual.pae[pairs], expected.predicted_aligned_error[pairs], atol=1e-3, rtol=0)
    torch.testing.assert_close(actual.distogram_logits[pairs], expected.distogram_logits[pairs], atol=1e-3, rtol=0)
    torch.testing.assert_close(actual.lm_logits[valid], expected.lm_logits[valid], atol=1e-3, rtol=0)
    # transformers' pTM of a batch is one number that counts padding: compared by sequence, as fair-esm has it.
    for length, logits, ptm in zip(valid.sum(-1), expected.ptm_logits, actual.ptm, strict=True):
        theirs = compute_tm(logits[None, :length, :length], max_bin=31, no_bins=64)
        torch.testing.assert_close(ptm, theirs.squeeze(), atol=1e-4, rtol=0)
    residues = batch.chain_index >= 0
    assert torch.equal(actual.atom_mask, expected.atom37_atom_exists.bool() & residues[:, :, None])


@torch.no_grad()
def test_padding_changes_nothing(model: ESMFold) -> None:
    padded = model(encode_complexes([RESIDUES[:11], RESIDUES[:40]]), num_recycles=1)
    alone = model(encode_complexes([RESIDUES[:11]]), num_recycles=1)
    torch.testing.assert_close(padded.positions[:1, :11], alone.positions, atol=1e-3, rtol=0)
    torch.testing.assert_close(padded.plddt[:1, :11], alone.plddt, atol=1e-3, rtol=0)
    torch.testing.assert_close(padded.pae[:1, :11, :11], alone.pae, atol=1e-3, rtol=0)
    torch.testing.assert_close(padded.ptm[:1], alone.ptm, atol=1e-5, rtol=0)


@torch.no_grad()
def test_bfloat16_trunk_leaves_structure_module_exact(model: ESMFold) -> None:
    cast = copy.deepcopy(model).set_compute_dtype(torch.bfloat16)
    assert cast.layer_mix.dtype == cast.lm.embedding.weight.dtype == cast.trunk.recycle_distogram.weight.dtype
    assert cast.trunk.blocks[0].tri_mul_in.left_proj.weight.dtype == torch.bfloat16
    for exact, original in (
        (cast.trunk.structure_module, model.trunk.structure_module),
        (cast.plddt_head, model.plddt_head),
    ):
        assert all(map(torch.equal, exact.parameters(), original.parameters()))
        assert all(map(torch.equal, exact.buffers(), original.buffers()))
    output = cast(encode_complexes([RESIDUES[:20]]), num_recycles=0)
    assert output.positions.dtype == torch.float32
    assert output.positions.isfinite().all()
