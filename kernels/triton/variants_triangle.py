"""Variants of the pair track's kernels that are compiled ahead of time: every type and option in use."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from protquant.kernels.triton.attention import attention_int8_kernel, channel_block
from protquant.kernels.triton.gated_projection import gated_projection_kernel
from protquant.kernels.triton.tiles_triangle import AttentionTile, TransitionTile, gated_tile, triangle_tile
from protquant.kernels.triton.transition import transition_int8_kernel
from protquant.kernels.triton.triangle_product import triangle_product_kernel
from protquant.kernels.triton.variant import Variant

__all__ = ["variants_of_triangle"]

_DTYPES = ("fp32", "bf16", "fp16")


def variants_of_triangle(target: str) -> Iterator[Variant]:
    """Yield gated projections, triangle products, attention and transitions, with the tiles of `target`."""
    yield from _gated_projections(target)
    yield from _triangle_products(target)
    yield from _attentions(target)
    yield from _transitions(target)


def _options(tile: Any) -> dict[str, int]:
    return {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": True}


def _gated_projections(target: str) -> Iterator[Variant]:
    types = {"x_ptr": "*i8", "x_scale_ptr": "*fp32", "inverse_ptr": "*fp32", "out_zero_ptr": "*i32", "y_ptr": "*i8"}
    types |= {f"{which}_ptr": "*i8" for which in ("proj", "gate")}
    types |= {f"{which}_scale_ptr": "*fp32" for which in ("proj", "gate")}
    types |= dict.fromkeys(
        ("M", "N", "K", "x_stride", "scale_stride", "inverse_stride", "line", "y_line_stride", "y_column_stride"), "i32"
    )
    zeros = {"x_zero_ptr": "*i32", "proj_sum_ptr": "*i32", "gate_sum_ptr": "*i32"}
    rest = {"proj_bias_ptr": "*fp32", "gate_bias_ptr": "*fp32", "mask_ptr": "*u8"}
    tile = gated_tile(target)
    tiles = {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
    for name, present in (("plain", {}), ("bias, mask", rest), ("zero, bias, mask", zeros | rest)):
        for residues, aligned in (
            ("", ("y_column_stride", "y_line_stride")),
            ("; 16 n residues", ("M", "line", "y_line_stride", "y_column_stride")),
        ):
            settings: dict[str, Any] = {key: None for key in zeros | rest if key not in present}
            settings |= tiles | {"y_row_stride": 1, "LOW": -128, "HIGH": 127}
            yield Variant(
                f"gated_projection ({name}{residues})",
                gated_projection_kernel,
                types | present,
                settings,
                _options(tile),
                ("N", "K", "x_stride", *aligned),
            )


# Cases: zero points, type of the output, and residues: a multiple of 16, any number with padding, or any
# number without padding.
_TRIANGLE_PRODUCTS = [
    *((has_zeros, dtype, "16 n residues") for has_zeros in (False, True) for dtype in _DTYPES),
    *((has_zeros, "fp32", "padded") for has_zeros in (False, True)),
    (True, "fp32", ""),
]


def _triangle_products(target: str) -> Iterator[Variant]:
    types = {"left_ptr": "*i8", "right_ptr": "*i8", "left_scale_ptr": "*fp32", "right_scale_ptr": "*fp32"}
    zeros = {f"{side}_{what}_ptr": "*i32" for side in ("left", "right") for what in ("zero", "sum")}
    for direction, strided, along in (("outgoing", "row", "k"), ("incoming", "k", "row")):
        for has_zeros, dtype, residues in _TRIANGLE_PRODUCTS:
            tile = triangle_tile(target, is_aligned=bool(residues))
            operands = [f"{side}_{axis}_stride" for side in ("left", "right") for axis in ("channel", strided)]
            sizes = ["ROWS", "COLUMNS", "K", "y_row_stride", "y_channel_stride"]
            aligned = (*operands, *sizes) if residues == "16 n residues" else tuple(operands) if residues else ()
            numbers = [*operands, *sizes, "left_scale_stride", "right_scale_stride"]
            settings: dict[str, Any] = {} if has_zeros else dict.fromkeys(zeros)
            settings |= {"BLOCK_I": tile.block_m, "BLOCK_J": tile.block_n, "BLOCK_K": tile.block_k}
            settings |= {f"left_{along}_stride": 1, f"right_{along}_stride": 1}
            settings["PADDING"] = 16 if residues == "padded" else 1
            words = ["zeros"] if has_zeros else []
            words += [dtype]
            words += [residues] if residues else []
            yield Variant(
                f"triangle_product {direction} ({'; '.join(words)})",
                triangle_product_kernel,
                types | (zeros if has_zeros else {}) | {"y_ptr": f"*{dtype}"} | dict.fromkeys(numbers, "i32"),
                settings,
                _options(tile),
                aligned,
            )


@dataclass(frozen=True)
class _Attention:
    """A use of attention: its place, and its options."""

    name: str
    head_dim: int
    dtypes: tuple[str, ...] = _DTYPES
    bias: str | None = None
    per_token: bool = True
    has_zeros: bool = False
    is_aligned: bool = True
    has_mask: bool = True


_ATTENTIONS = [
    _Attention("bias", 32, bias="fp16", per_token=False),
    _Attention("bias", 32, ("bf16",), bias="fp16", per_token=False, is_aligned=False),
    _Attention("wide bias", 32, ("fp32",), bias="fp32", per_token=False),
    _Attention("bias, zeros", 32, ("fp32", "bf16"), bias="fp16", per_token=False, has_zeros=True),
    _Attention("bias, zeros", 32, ("bf16",), bias="fp16", per_token=False, has_zeros=True, is_aligned=False),
    _Attention("wide bias, zeros, tokens", 32, ("fp32", "bf16"), bias="fp32", has_zeros=True),
    _Attention("wide bias, zeros, tokens", 64, ("fp32",), bias="fp32", has_zeros=True),
    _Attention("bias", 8, ("bf16",), bias="fp16", per_token=False),
    _Attention("tokens", 16, ("bf16",)),
    _Attention("tokens", 20, ("bf16",)),
    _Attention("tokens", 64),
    _Attention("zeros, tokens", 64, ("bf16",), has_zeros=True, is_aligned=False),
    _Attention("tokens", 128, ("bf16",)),
    # Sizes of heads of the language models.
    *(_Attention("mask", head_dim, ("bf16",), per_token=False) for head_dim in (16, 24, 32, 64, 128)),
    _Attention("mask, zeros", 64, ("bf16",), per_token=False, has_zeros=True, is_aligned=False),
    _Attention("plain", 64, ("bf16",), per_token=False, has_mask=False),
]


def _attentions(target: str) -> Iterator[Variant]:
    for call in _ATTENTIONS:
        for dtype in call.dtypes:
            yield _attention(call, dtype, target)


def _attention(call: _Attention, dtype: str, target: str) -> Variant:
    types = {f"{name}_ptr": "*i8" for name in "qkv"} | {f"{name}_scale_ptr": "*fp32" for name in "qkv"}
    types |= {"y_ptr": f"*{dtype}", "logit_scale": "fp32"}
    numbers = ["heads", "queries", "keys", "mask_batch_stride"]
    strides = [f"{name}{axis}_stride" for name in "qkv" for axis in ("_batch", "_head", "")]
    scales = [f"{name}_scale{axis}_stride" for name in "qkv" for axis in ("_batch", "_head", "")]
    bias = ["bias_batch_stride", "bias_head_stride", "bias_query_stride"]
    settings: dict[str, Any] = {"mask_stride": 1}
    if call.has_mask:
        types["mask_ptr"] = "*u8"
    else:
        settings |= {"mask_ptr": None, "mask_stride": 0}
    if call.has_zeros:
        types |= {f"{name}_zero_ptr": "*i32" for name in "qkv"}
    else:
        settings |= {f"{name}_zero_ptr": None for name in "qkv"}
    if call.bias:
        types["bias_ptr"] = f"*{call.bias}"
        settings["bias_key_stride"] = 1
    else:
        settings["bias_ptr"] = None
        numbers += ["bias_key_stride"]
    tile = AttentionTile.of(target, call.head_dim, is_wide=call.bias == "fp32")
    settings |= {"HEAD_DIM": call.head_dim, "BLOCK_D": channel_block(call.head_dim), "BLOCK_Q": tile.queries}
    settings |= {"BLOCK_K": tile.keys}
    settings |= {"KEY_SCALES": call.per_token, "VALUE_SCALES": call.per_token}
    types |= dict.fromkeys([*numbers, *strides, *scales, *bias], "i32")
    # Strides over channels are multiples of 16 if the channels of a head are.
    aligned = tuple(strides) if call.head_dim % 16 == 0 else ()
    # Rows of a narrow bias are padded for any number of residues.
    aligned += tuple(bias) if call.is_aligned or call.bias == "fp16" else ()
    aligned += ("queries", "keys", *scales) if call.is_aligned else ()
    words = [call.name, f"{call.head_dim} channels", dtype]
    words += ["16 n residues"] if call.is_aligned else []
    return Variant(
        f"attention_int8 ({'; '.join(words)})", attention_int8_kernel, types, settings, _options(tile), aligned
    )


def _transitions(target: str) -> Iterator[Variant]:
    types = {"x_ptr": "*i8", "x_scale_ptr": "*fp32", "hidden_scale_ptr": "*fp32", "hidden_inverse_ptr": "*fp32"}
    types |= {"hidden_zero_ptr": "*i32", "down_sum_ptr": "*i32"}
    types |= {f"{which}_ptr": "*i8" for which in ("up", "down")}
    types |= {f"{which}_scale_ptr": "*fp32" for which in ("up", "down")}
    types |= dict.fromkeys(("M", "N", "K", "F", "x_stride", "scale_stride", "residual_stride"), "i32")
    zeros = {"x_zero_ptr": "*i32", "up_sum_ptr": "*i32"}
    biases = {"up_bias_ptr": "*fp32", "down_bias_ptr": "*fp32"}
    for channels in (128, 256):
        tile = TransitionTile.of(target, channels)
        tiles = {"BLOCK_M": tile.rows, "BLOCK_N": channels, "BLOCK_K": channels, "BLOCK_F": tile.hidden}
        for name, present, dtypes in (
            ("bias", biases, ("bf16",)),
            ("zero, bias, residual", zeros | biases, _DTYPES),
        ):
            for dtype in dtypes:
                pointers = present | ({"residual_ptr": f"*{dtype}"} if "residual" in name else {})
                settings = {key: None for key in (*zeros, *biases, "residual_ptr") if key not in pointers}
                yield Variant(
                    f"transition_int8 ({name}; {channels} channels; {dtype})",
                    transition_int8_kernel,
                    types | pointers | {"y_ptr": f"*{dtype}"},
                    settings | tiles | {"LOW": -128, "HIGH": 127},
                    _options(tile),
                    ("N", "K", "F", "x_stride", "residual_stride"),
                )
