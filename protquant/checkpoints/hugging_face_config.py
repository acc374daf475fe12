"""Sizes from the `config.json` of an ESM checkpoint of transformers; unsupported settings are refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protquant.errors import ProtquantError
from protquant.models import ESM2Config, ESMFoldConfig, StructureModuleConfig, TrunkConfig
from protquant.models.alphabet import MASK, PAD, TOKENS

__all__ = ["esm2_config", "esmfold_config", "read_config"]


def read_config(path: Path) -> Any:
    """Read and check a `config.json`.

    Returns
    -------
    transformers.EsmConfig
        Untyped, because the declared types of its fields are wider than the checked values.

    Raises
    ------
    ProtquantError
        If the file is missing or damaged, describes another architecture, or has an unsupported setting.
    """
    if not path.is_file():
        raise ProtquantError(
            f"{path}: no such file; a Hugging Face checkpoint is config.json and weights in one folder."
        )
    from transformers import EsmConfig  # noqa: PLC0415 (takes a second and 80 MiB, and few need it)

    try:
        values = EsmConfig.get_config_dict(path.parent)[0]
        if (found := values.get("model_type")) != "esm":
            raise ProtquantError(
                f"{path}: model_type is {found!r}, expected 'esm': only ESM-2 and ESMFold checkpoints can be read."
            )
        config = EsmConfig.from_dict(values)
    except ProtquantError:
        raise
    except Exception as error:  # damaged in any way: transformers' validators raise many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ProtquantError(f"{path}: cannot be read as the configuration of an ESM model ({reason}).") from error
    if config.position_embedding_type == "absolute":
        raise ProtquantError(
            f"{path}: is an ESM-1b or ESM-1v, whose positions are learned; ESM-2 and ESMFold are read."
        )
    if problems := list(_unsupported(config)):
        raise ProtquantError(f"{path}: not supported: {'; '.join(problems)}. Only ESM-2 and ESMFold are.")
    return config


def _unsupported(config: Any) -> Iterator[str]:
    required: dict[str, Any] = {
        "position_embedding_type": "rotary",
        "pad_token_id": PAD,
        "mask_token_id": MASK,
    }
    refused = ["emb_layer_norm_before", "is_decoder", "add_cross_attention"]
    yield from _differences(config, required, refused)
    activation = getattr(config, "hidden_act", "gelu")
    if activation != "gelu":
        yield f"hidden_act is {activation!r} (expected 'gelu')"
    if config.vocab_size is None or config.vocab_size < len(TOKENS):
        yield f"vocab_size is {config.vocab_size} (expected {len(TOKENS)})"
    if config.vocab_list is not None and tuple(config.vocab_list)[: len(TOKENS)] != TOKENS:
        yield "vocab_list is not the alphabet of ESM-2"
    if config.is_folding_model:
        folding = config.esmfold_config
        refused = ["bypass_lm", "esm_ablate_sequence", "esm_ablate_pairwise", "use_esm_attn_map"]
        yield from _differences(folding, {}, refused)
        required = {"epsilon": 1e-8, "inf": 1e5, "num_angles": 7}
        yield from _differences(folding.trunk.structure_module, required, [])


def _differences(config: Any, required: dict[str, Any], refused: list[str]) -> Iterator[str]:
    for name, expected in required.items():
        if (value := getattr(config, name)) != expected:
            yield f"{name} is {value!r} (expected {expected!r})"
    for name in refused:
        if value := getattr(config, name):
            yield f"{name} is {value!r} (expected false)"


def esm2_config(config: Any) -> ESM2Config:
    """Return the sizes of the encoder, with both heads and the default rotary frequencies.

    Raises
    ------
    ValueError
        If sizes do not go together.
    """
    return ESM2Config(
        num_layers=config.num_hidden_layers,
        dim=config.hidden_size,
        num_heads=config.num_attention_heads,
        ffn_dim=config.intermediate_size,
        vocab_size=config.vocab_size,
        layer_norm_eps=config.layer_norm_eps,
        token_dropout=bool(config.token_dropout),
    )


def esmfold_config(config: Any) -> ESMFoldConfig:
    """Return the sizes of an ESMFold, whose language model has both heads and the default rotary frequencies.

    Raises
    ------
    ValueError
        If sizes do not go together.
    """
    folding = config.esmfold_config
    trunk, structure = folding.trunk, folding.trunk.structure_module
    return ESMFoldConfig(
        lm=esm2_config(config),
        trunk=TrunkConfig(
            num_blocks=trunk.num_blocks,
            single_dim=trunk.sequence_state_dim,
            pair_dim=trunk.pairwise_state_dim,
            single_head_dim=trunk.sequence_head_width,
            pair_head_dim=trunk.pairwise_head_width,
            position_bins=trunk.position_bins,
            max_recycles=trunk.max_recycles,
            structure_module=StructureModuleConfig(
                single_dim=structure.sequence_dim,
                pair_dim=structure.pairwise_dim,
                ipa_dim=structure.ipa_dim,
                num_heads=structure.num_heads_ipa,
                num_qk_points=structure.num_qk_points,
                num_v_points=structure.num_v_points,
                resnet_dim=structure.resnet_dim,
                num_resnet_blocks=structure.num_resnet_blocks,
                num_transition_layers=structure.num_transition_layers,
                num_layers=structure.num_blocks,
                num_angles=structure.num_angles,
                translation_scale=float(structure.trans_scale_factor),
            ),
        ),
        plddt_hidden_dim=folding.lddt_head_hid_dim,
        embed_residues=bool(folding.embed_aa),
    )
