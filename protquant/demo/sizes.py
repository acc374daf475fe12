"""Sizes of the demo models: together under 6 million parameters, so that half precision fits in 12 MB."""

from protquant.models import ESM2Config, ESMFoldConfig, StructureModuleConfig, TrunkConfig

__all__ = ["FOLDING_MODEL", "LANGUAGE_MODEL"]

LANGUAGE_MODEL = ESM2Config(num_layers=6, dim=160, num_heads=10, ffn_dim=640)

FOLDING_MODEL = ESMFoldConfig(
    lm=LANGUAGE_MODEL,
    trunk=TrunkConfig(
        num_blocks=4,
        single_dim=192,
        pair_dim=32,
        single_head_dim=32,
        pair_head_dim=16,
        max_recycles=2,
        structure_module=StructureModuleConfig(
            single_dim=192, pair_dim=32, ipa_dim=16, num_heads=6, resnet_dim=96, num_layers=4
        ),
    ),
    plddt_hidden_dim=96,
)
