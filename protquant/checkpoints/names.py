"""Tables of tensor names: those of other programs, and ours.

The layouts are those of transformers' ESM-2, fair-esm's ESM-2, and ESMFold's folding part, which is the same in both.
A row is for a module with its `.weight` and `.bias`, or for a single tensor; `{n}` and `{m}` stand for numbers.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["FAIR_ESM_ESM2", "FAIR_ESM_ESMFOLD", "HUGGING_FACE_ESM2", "HUGGING_FACE_ESMFOLD", "RenameTable"]


class RenameTable:
    """Renames the tensors of a state dict in both directions.

    Parameters
    ----------
    rows : Mapping
        Our name of a module or tensor by their name; `{n}` and `{m}` match a number, which is copied.
    """

    def __init__(self, rows: Mapping[str, str]) -> None:
        self.rows: Mapping[str, str] = MappingProxyType(dict(rows))
        self._to_ours = [(_pattern(theirs), _template(ours)) for theirs, ours in rows.items()]
        self._to_theirs = [(_pattern(ours), _template(theirs)) for theirs, ours in rows.items()]

    def to_ours(self, name: str) -> str | None:
        """Return our name for their name; None if the table has no row for it."""
        return _rename(self._to_ours, name)

    def to_theirs(self, name: str) -> str | None:
        """Return their name for our name; None if the table has no row for it."""
        return _rename(self._to_theirs, name)

    def prefixed(self, theirs: str, ours: str) -> "RenameTable":
        """Return the table with the prefix `theirs` before their names, and `ours` before our names."""
        return RenameTable({theirs + left: ours + right for left, right in self.rows.items()})

    def __or__(self, other: "RenameTable") -> "RenameTable":
        return RenameTable({**self.rows, **other.rows})


def _pattern(row: str) -> re.Pattern[str]:
    name = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(row))
    return re.compile(rf"{name}(?P<leaf>\.(?:weight|bias))?")


def _template(row: str) -> str:
    return re.sub(r"\{(\w)\}", r"\\g<\1>", row) + r"\g<leaf>"


def _rename(rules: list[tuple[re.Pattern[str], str]], name: str) -> str | None:
    for pattern, template in rules:
        if match := pattern.fullmatch(name):
            return match.expand(template)
    return None


_HUGGING_FACE_STEM = RenameTable(
    {
        "esm.embeddings.word_embeddings": "embedding",
        "esm.encoder.layer.{n}.attention.LayerNorm": "layers.{n}.attn_norm",
        "esm.encoder.layer.{n}.attention.self.query": "layers.{n}.attn.q_proj",
        "esm.encoder.layer.{n}.attention.self.key": "layers.{n}.attn.k_proj",
        "esm.encoder.layer.{n}.attention.self.value": "layers.{n}.attn.v_proj",
        "esm.encoder.layer.{n}.attention.output.dense": "layers.{n}.attn.out_proj",
        "esm.encoder.layer.{n}.LayerNorm": "layers.{n}.ffn_norm",
        "esm.encoder.layer.{n}.intermediate.dense": "layers.{n}.ffn.up_proj",
        "esm.encoder.layer.{n}.output.dense": "layers.{n}.ffn.down_proj",
        "esm.encoder.emb_layer_norm_after": "final_norm",
        "esm.contact_head.regression": "contact_head.regression",
    }
)
_LANGUAGE_MODEL_HEAD = RenameTable(
    {
        "lm_head.dense": "lm_head.dense",
        "lm_head.layer_norm": "lm_head.norm",
        "lm_head.bias": "lm_head.bias",
    }
)
HUGGING_FACE_ESM2 = _HUGGING_FACE_STEM | _LANGUAGE_MODEL_HEAD
"""transformers' `EsmForMaskedLM`."""

FAIR_ESM_ESM2 = _LANGUAGE_MODEL_HEAD | RenameTable(
    {
        "embed_tokens": "embedding",
        "layers.{n}.self_attn_layer_norm": "layers.{n}.attn_norm",
        "layers.{n}.self_attn.q_proj": "layers.{n}.attn.q_proj",
        "layers.{n}.self_attn.k_proj": "layers.{n}.attn.k_proj",
        "layers.{n}.self_attn.v_proj": "layers.{n}.attn.v_proj",
        "layers.{n}.self_attn.out_proj": "layers.{n}.attn.out_proj",
        "layers.{n}.final_layer_norm": "layers.{n}.ffn_norm",
        "layers.{n}.fc1": "layers.{n}.ffn.up_proj",
        "layers.{n}.fc2": "layers.{n}.ffn.down_proj",
        "emb_layer_norm_after": "final_norm",
        "contact_head.regression": "contact_head.regression",
    }
)
"""fair-esm's `ESM2`, without the prefixes of files."""

_TRIANGLE_MULTIPLICATION = {
    "layer_norm_in": "norm",
    "linear_a_p": "left_proj",
    "linear_a_g": "left_gate",
    "linear_b_p": "right_proj",
    "linear_b_g": "right_gate",
    "layer_norm_out": "out_norm",
    "linear_z": "out_proj",
    "linear_g": "out_gate",
}
_TRIANGLE_ATTENTION = {
    "layer_norm": "norm",
    "linear": "bias_proj",
    "mha.linear_q": "q_proj",
    "mha.linear_k": "k_proj",
    "mha.linear_v": "v_proj",
    "mha.linear_g": "gate_proj",
    "mha.linear_o": "out_proj",
}
_TRANSITION = {"mlp.0": "norm", "mlp.1": "up_proj", "mlp.3": "down_proj"}
_BLOCK = (
    RenameTable(
        {
            "pair_to_sequence.layernorm": "pair_to_bias.norm",
            "pair_to_sequence.linear": "pair_to_bias.proj",
            "layernorm_1": "single_norm",
            "seq_attention.proj": "single_attn.qkv_proj",
            "seq_attention.g_proj": "single_attn.gate_proj",
            "seq_attention.o_proj": "single_attn.out_proj",
            "sequence_to_pair.layernorm": "single_to_pair.norm",
            "sequence_to_pair.proj": "single_to_pair.proj",
            "sequence_to_pair.o_proj": "single_to_pair.out_proj",
        }
    )
    | RenameTable(_TRANSITION).prefixed("mlp_seq.", "single_transition.")
    | RenameTable(_TRANSITION).prefixed("mlp_pair.", "pair_transition.")
    | RenameTable(_TRIANGLE_MULTIPLICATION).prefixed("tri_mul_out.", "tri_mul_out.")
    | RenameTable(_TRIANGLE_MULTIPLICATION).prefixed("tri_mul_in.", "tri_mul_in.")
    | RenameTable(_TRIANGLE_ATTENTION).prefixed("tri_att_start.", "tri_attn_start.")
    | RenameTable(_TRIANGLE_ATTENTION).prefixed("tri_att_end.", "tri_attn_end.")
)
_STRUCTURE_MODULE = RenameTable(
    {
        "layer_norm_s": "single_norm",
        "layer_norm_z": "pair_norm",
        "linear_in": "linear_in",
        "ipa.linear_q": "ipa.q_proj",
        "ipa.linear_kv": "ipa.kv_proj",
        "ipa.linear_q_points": "ipa.q_point_proj",
        "ipa.linear_kv_points": "ipa.kv_point_proj",
        "ipa.linear_b": "ipa.bias_proj",
        "ipa.head_weights": "ipa.head_weights",
        "ipa.linear_out": "ipa.out_proj",
        "layer_norm_ipa": "ipa_norm",
        "transition.layers.{n}.linear_{m}": "transitions.{n}.linear_{m}",
        "transition.layer_norm": "transition_norm",
        "bb_update.linear": "backbone_update",
        "angle_resnet.linear_in": "angle_resnet.linear_in",
        "angle_resnet.linear_initial": "angle_resnet.linear_initial",
        "angle_resnet.layers.{n}.linear_{m}": "angle_resnet.layers.{n}.linear_{m}",
        "angle_resnet.linear_out": "angle_resnet.linear_out",
    }
)
_FOLDING = (
    RenameTable(
        {
            "esm_s_combine": "layer_mix",
            "esm_s_mlp.0": "single_embedding.norm",
            "esm_s_mlp.1": "single_embedding.linear_1",
            "esm_s_mlp.3": "single_embedding.linear_2",
            "embedding": "residue_embedding",
            "trunk.pairwise_positional_embedding.embedding": "trunk.relative_position.embedding",
            "trunk.recycle_s_norm": "trunk.recycle_single_norm",
            "trunk.recycle_z_norm": "trunk.recycle_pair_norm",
            "trunk.recycle_disto": "trunk.recycle_distogram",
            "trunk.trunk2sm_s": "trunk.to_structure_single",
            "trunk.trunk2sm_z": "trunk.to_structure_pair",
            "distogram_head": "distogram_head",
            "ptm_head": "pae_head",
            "lm_head": "lm_head",
            "lddt_head.0": "plddt_head.norm",
            "lddt_head.1": "plddt_head.linear_1",
            "lddt_head.2": "plddt_head.linear_2",
            "lddt_head.3": "plddt_head.linear_3",
        }
    )
    | _BLOCK.prefixed("trunk.blocks.{n}.", "trunk.blocks.{n}.")
    | _STRUCTURE_MODULE.prefixed("trunk.structure_module.", "trunk.structure_module.")
)
HUGGING_FACE_ESMFOLD = _HUGGING_FACE_STEM.prefixed("", "lm.") | _FOLDING
"""transformers' `EsmForProteinFolding`, whose stem has no language-model head."""
FAIR_ESM_ESMFOLD = FAIR_ESM_ESM2.prefixed("esm.", "lm.") | _FOLDING
"""fair-esm's `ESMFold`."""
