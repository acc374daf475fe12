"""Sizes of the demo models: together under 6 million parameters, so that half precision fits in 12 MB."""

from protquant.models.esm2 import ESM2Config

__all__ = ["LANGUAGE_MODEL"]

LANGUAGE_MODEL = ESM2Config(num_layers=6, dim=160, num_heads=10, ffn_dim=640)
