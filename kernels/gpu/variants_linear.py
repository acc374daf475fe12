"""Variants of the linear layers that are compiled ahead of time: every type and option in use."""

from collections.abc import Iterator

from protquant.kernels.gpu.int8_linear import linear_int8_kernel
from protquant.kernels.gpu.tiles import MatmulTile
from protquant.kernels.gpu.variant import Variant

__all__ = ["variants_of_linears"]


def variants_of_linears(target: str) -> Iterator[Variant]:
    """All linear layers in all types that are used, with the tiles of `target`."""
    numbers = dict.fromkeys(("M", "N", "K", "x_stride", "scale_stride", "gate_stride", "residual_stride"), "i32")
    aligned = ("N", "K", "x_stride", "gate_stride", "residual_stride")
    for dtype in ("fp32", "bf16", "fp16"):
        operands = {"x_ptr": "*i8", "x_scale_ptr": "*fp32", "weight_ptr": "*i8", "weight_scale_ptr": "*fp32"}
        optional = {
            "x_zero_ptr": "*i32",
            "weight_sum_ptr": "*i32",
            "bias_ptr": "*fp32",
            "gate_ptr": f"*{dtype}",
            "residual_ptr": f"*{dtype}",
        }
        for fused, present, activation in (
            ("plain", (), "none"),
            ("zero, bias", ("x_zero_ptr", "weight_sum_ptr", "bias_ptr"), "none"),
            ("zero, bias, ReLU", ("x_zero_ptr", "weight_sum_ptr", "bias_ptr"), "relu"),
            ("zero, bias, GELU", ("x_zero_ptr", "weight_sum_ptr", "bias_ptr"), "gelu"),
            ("zero, bias, gate, residual", tuple(optional), "none"),
        ):
            tile = MatmulTile.of(target)
            if len(present) == len(optional) and dtype == "fp32":
                tile = tile.narrow()  # as `linear_int8` chooses
            tiles = {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k, "GROUP_M": 8}
            options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": True}
            types = operands | {name: optional[name] for name in present} | {"y_ptr": f"*{dtype}"} | numbers
            settings = {name: None for name in optional if name not in present} | tiles | {"ACTIVATION": activation}
            yield Variant(f"linear_int8 ({fused}; {dtype})", linear_int8_kernel, types, settings, options, aligned)
