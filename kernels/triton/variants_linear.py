"""Variants of the linear layers that are compiled ahead of time: every type and option in use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import triton.language as tl

from protquant.kernels.triton.flattened_linear import linear_flattened_kernel
from protquant.kernels.triton.int4_linear import block_of_group, linear_int4_kernel
from protquant.kernels.triton.int8_linear import linear_int8_kernel
from protquant.kernels.triton.output_tile import GROUP_M
from protquant.kernels.triton.tiles import MatmulTile, Operands
from protquant.kernels.triton.variant import Variant

__all__ = ["variants_of_linears"]

_DTYPES = ("fp32", "bf16", "fp16")
_GROUP_SIZE = 128
_ALIGNED = ("N", "K", "x_stride", "weight_stride", "gate_stride", "residual_stride", "group_size")


@dataclass(frozen=True)
class _After:
    """An epilogue: its operations and its output. With `opens`, the gate's values are float32, without a residual."""

    dtype: str
    bias: bool = True
    activation: str = "none"
    gated: bool = False
    opens: bool = False

    @property
    def name(self) -> str:
        parts = ["bias"] * self.bias + [{"relu": "ReLU", "gelu": "GELU", "sigmoid": "sigmoid"}.get(self.activation, "")]
        parts += ["gate, residual"] * self.gated + ["values"] * self.opens
        return ", ".join(part for part in parts if part)


def _afters(*dtypes: str) -> list[_After]:
    """Return the two epilogues that take most registers."""
    return [after for dtype in dtypes for after in (_After(dtype, activation="gelu"), _After(dtype, gated=True))]


# Gates of the pair track: the gated values become codes, or are added to the pair.
_GATES = [_After("i8", activation="sigmoid", opens=True), _After("fp32", activation="sigmoid", gated=True)]


def variants_of_linears(target: str) -> Iterator[Variant]:
    """Yield all linear layers in all types that are used, with the tiles of `target`."""
    yield from _int8(target)
    yield from _int4(target)
    yield from _flattened(target)


def _int8(target: str) -> Iterator[Variant]:
    types = {"x_ptr": "*i8", "x_scale_ptr": "*fp32", "weight_ptr": "*i8", "weight_scale_ptr": "*fp32"}
    numbers = ("K", "x_stride", "scale_stride")
    x_zero = {"x_zero_ptr": "*i32", "weight_sum_ptr": "*i32"}
    weight_zero = {"weight_zero_ptr": "*i32"}
    all_afters = [_After(dtype, activation=name) for dtype in ("i8", *_DTYPES) for name in ("none", "relu", "gelu")]
    all_afters += [_After(dtype, gated=True) for dtype in ("i8", *_DTYPES)]
    all_afters += [*_GATES, _After("bf16", activation="sigmoid", gated=True)]
    cases: tuple[tuple[str, dict[str, str], list[_After]], ...] = (
        ("", {}, [_After(dtype, bias=False) for dtype in _DTYPES]),
        ("zero", x_zero, all_afters),
        ("weight zero", weight_zero, _afters("bf16")),
        ("both zeros", x_zero | weight_zero, _afters("i8", "fp32")),
    )
    for zeros, present, afters in cases:
        settings = {name: None for name in x_zero | weight_zero if name not in present}
        for after in afters:
            for few, tile in _tiles(target, "int8", after, narrow="weight_zero_ptr" in present):
                name = ("linear_int8", zeros, few)
                yield _variant(linear_int8_kernel, name, types | present, numbers, settings, after, tile)


def _int4(target: str) -> Iterator[Variant]:
    types = {"weight_ptr": "*u8", "weight_scale_ptr": "*fp32", "weight_zero_ptr": "*u8"}
    numbers = ("K", "x_stride", "scale_stride", "weight_stride", "groups", "group_size")
    scales = {"x_scale_ptr": "*fp32", "x_zero_ptr": "*i32"}
    sums = {"weight_sum_ptr": "*i32"}
    cases: tuple[tuple[str, str, tl.dtype, Operands, dict[str, str], list[_After]], ...] = (
        ("linear_int4 W4A8", "i8", tl.int8, "int4", scales | sums, [*_afters("i8", "fp32", "bf16"), *_GATES]),
        ("linear_int4 W4A4", "u8", tl.int8, "int4", scales, _afters("i8", "fp32", "bf16")),
        ("linear_int4 W4A16", "bf16", tl.bfloat16, "half", {}, _afters("bf16")),
        ("linear_int4 W4A16", "fp16", tl.float16, "half", {}, _afters("fp16")),
        ("linear_int4 W4A32", "fp32", tl.float32, "float", {}, _afters("fp32")),
    )
    for name, x_type, multiply, operands, present, afters in cases:
        absent = {key: None for key in scales | sums if key not in present}
        for groups, codes in (("", ""), ("groups", ""), ("", "dINT"), ("groups", "dINT")):
            # The codes of weights do not affect the epilogue.
            for after in afters[:2] if codes else afters:
                settings: dict[str, Any] = absent | {"MULTIPLY": multiply, "DINT": bool(codes)}
                settings["SUM"] = tl.int32 if multiply == tl.int8 else tl.float32
                settings |= {"ONE_GROUP": not groups, "ONE_BLOCK": False}
                all_types = types | {"x_ptr": f"*{x_type}"} | present
                if groups and "weight_sum_ptr" in present:
                    all_types["weight_sum_ptr"] = "*i16"  # sums of a group are small
                for few, tile in _tiles(target, operands, after, narrow=bool(groups)):
                    if groups:
                        settings["BLOCK_K"] = block_of_group(_GROUP_SIZE, tile.block_k)
                        settings["ONE_BLOCK"] = settings["BLOCK_K"] == _GROUP_SIZE
                    words = (name, groups, codes, few)
                    yield _variant(linear_int4_kernel, words, all_types, numbers, settings, after, tile)


def _flattened(target: str) -> Iterator[Variant]:
    types = {"channel_ptr": "*i64", "weight_scale_ptr": "*fp32", "x_scale": "fp32", "x_inverse": "fp32"}
    numbers = ("K", "x_stride", "weight_stride")
    for dtype in _DTYPES:
        pieces = {f"{name}_ptr": f"*{dtype}" for name in ("x", "low", "high")}
        for packed in (False, True):
            weight = {"weight_ptr": "*u8", "weight_zero_ptr": "*u8"} if packed else {"weight_ptr": "*i8"}
            settings: dict[str, Any] = {"X_LOW": -127, "X_HIGH": 127}
            if not packed:
                settings["weight_zero_ptr"] = None
            for after in _afters(dtype) + ([] if packed else [_After("i8")]):
                ((_, tile),) = _tiles(target, "flattened", after)
                name = ("linear_flattened", "4 bits" if packed else "", f"x {dtype}")
                all_types = types | pieces | weight
                yield _variant(linear_flattened_kernel, name, all_types, numbers, settings, after, tile)


def _tiles(target: str, operands: Operands, after: _After, *, narrow: bool = False) -> Iterator[tuple[str, MatmulTile]]:
    """Return the tile of linear layers, with gate and residual in the type of the output, or in bfloat16 beside codes.

    A second tile follows if layers that read few channels have another one.
    """
    wide = narrow or (after.gated and after.dtype == "fp32")
    tile = MatmulTile.of(target, operands, channels=1024, wide=wide)
    yield "", tile
    few = MatmulTile.of(target, operands, channels=128, wide=wide)
    if few != tile:
        yield "few channels", few


def _variant(
    kernel: Any,
    name: tuple[str, ...],
    types: Mapping[str, str],
    numbers: tuple[str, ...],
    settings: Mapping[str, Any],
    after: _After,
    tile: MatmulTile,
) -> Variant:
    """Return a variant with the arguments that all linear layers share."""
    types = {**types, **dict.fromkeys((*numbers, "M", "N", "gate_stride", "residual_stride", "out_zero"), "i32")}
    types["y_ptr"] = f"*{after.dtype}"
    tiles = {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k, "GROUP_M": GROUP_M}
    settings = {**tiles, **settings, "ACTIVATION": after.activation, "OUT_LOW": -128, "OUT_HIGH": 127}
    read = "bf16" if after.dtype == "i8" else after.dtype
    for argument, dtype in (
        ("bias_ptr", "*fp32" if after.bias else None),
        ("gate_ptr", "*fp32" if after.opens else f"*{read}" if after.gated else None),
        ("residual_ptr", f"*{read}" if after.gated else None),
        ("out_inverse", "fp32" if after.dtype == "i8" else None),
    ):
        if dtype is None:
            settings[argument] = None
        else:
            types[argument] = dtype
    is_integer = settings.get("SUM", tl.int32) == tl.int32
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": not is_integer}
    words = ", ".join(word for word in (*name[1:], after.name) if word) or "plain"
    return Variant(f"{name[0]} ({words}; {after.dtype})", kernel, types, settings, options, _ALIGNED, is_integer)
