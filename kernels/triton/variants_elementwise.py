"""Variants of the kernels that read and write each element once: every type and option in use."""

from collections.abc import Iterator, Mapping

from protquant.kernels.triton.norm import norm_quantize_kernel
from protquant.kernels.triton.outer import outer_quantize_kernel
from protquant.kernels.triton.piecewise import (
    decode_tailed_bytes_kernel,
    encode_tailed_bytes_kernel,
    residual_add_encode_kernel,
)
from protquant.kernels.triton.quantize import quantize_int8_kernel
from protquant.kernels.triton.row_tile import UNFUSED, RowTile
from protquant.kernels.triton.token_outlier import TILE_ELEMENTS, quantize_token_outlier_kernel
from protquant.kernels.triton.variant import Variant

__all__ = ["variants_of_elementwise"]

_FLOATS = ("fp32", "bf16", "fp16")
_DECODING = dict.fromkeys(("step", "lowest", "width", "left_step", "left_codes", "right_step"), "fp32")
_ENCODING = dict.fromkeys(
    ("step", "inverse", "lowest", "width", "left_inverse", "left_codes", "right_inverse", "right_codes"), "fp32"
)
_OLD = {f"old_{name}": kind for name, kind in _DECODING.items()}
_BY_ROWS: dict[str, object] = {"x_column_stride": 1}
_MODES = {"static": (-128, 127), "symmetric": (-127, 127), "affine": (-128, 127)}
# Channels of the pair and of the single representation, of ESM-2 15B, and of its hidden layers, the widest ones.
_PAIR, _SINGLE, _EMBEDDING, _HIDDEN = 128, 1024, 5120, 20_480


def variants_of_elementwise(_target: str) -> Iterator[Variant]:
    """Yield all kernels that multiply no matrices, in all types that are used; all targets have the same tiles."""
    yield from _piecewise()
    for channels in (_PAIR, _SINGLE, _HIDDEN):
        yield from _quantize(channels)
    for channels in (_PAIR, _SINGLE, _EMBEDDING):
        yield from _norm(channels)
    yield from _decode_norm()
    for channels in (_PAIR, _SINGLE, _EMBEDDING):
        yield from _token_outlier(channels)
    yield from _outer()


def _piecewise() -> Iterator[Variant]:
    for dtype in _FLOATS:
        types = {"x_ptr": f"*{dtype}", "codes_ptr": "*u8", "count": "i32"} | _ENCODING
        yield _flat(f"encode_tailed_bytes ({dtype})", encode_tailed_bytes_kernel, types)
        types = {"codes_ptr": "*u8", "y_ptr": f"*{dtype}", "count": "i32"} | _DECODING
        yield _flat(f"decode_tailed_bytes ({dtype})", decode_tailed_bytes_kernel, types)
        for residual in ("u8", dtype):
            types = {"residual_ptr": f"*{residual}", "update_ptr": f"*{dtype}", "codes_ptr": "*u8", "count": "i32"}
            is_bytes = residual == "u8"
            types |= _ENCODING | (_OLD if is_bytes else {})
            settings = {} if is_bytes else dict.fromkeys(_OLD)
            name = f"residual_add_encode ({'bytes' if is_bytes else residual} + {dtype})"
            yield _flat(name, residual_add_encode_kernel, types, settings)
    # More elements than 32 bits can count.
    types = {"x_ptr": "*bf16", "codes_ptr": "*u8", "count": "i64"} | _ENCODING
    yield _flat("encode_tailed_bytes (bf16; 2^31 elements)", encode_tailed_bytes_kernel, types)


def _flat(name: str, kernel: object, types: Mapping[str, str], settings: Mapping[str, object] | None = None) -> Variant:
    options = {"num_warps": 4, **UNFUSED}
    return Variant(name, kernel, types, {**(settings or {}), "BLOCK": 4096}, options, ("count",), integer=False)


def _quantize(channels: int) -> Iterator[Variant]:
    for dtype in _FLOATS:
        for mode, zero in (("static", False), ("static", True), ("symmetric", False), ("affine", True)):
            types = {"x_ptr": f"*{dtype}", "scale_ptr": "*fp32", "codes_ptr": "*i8"}
            types |= {"zero_ptr": "*i32"} if zero else {}
            name = f"quantize_int8 ({mode}{', zero' if zero else ''}; {channels} x {dtype})"
            yield from _by_sign(name, quantize_int8_kernel, channels, types, _mode(mode, zero))


def _norm(channels: int) -> Iterator[Variant]:
    for mode in _MODES:
        for dtype in _FLOATS:
            types, settings = _norm_types(mode)
            settings |= dict.fromkeys(_DECODING) | {"y_ptr": None}
            name = f"layer_norm_quantize ({mode}; {channels} x {dtype})"
            types["x_ptr"] = f"*{dtype}"
            yield from _by_sign(name, norm_quantize_kernel, channels, types, settings | _BY_ROWS)
        if channels == _PAIR:
            types, settings = _norm_types(mode)
            settings |= dict.fromkeys((*_DECODING, "y_ptr")) | {"x_stride": 1}
            name = f"layer_norm_quantize ({mode}; {channels} x fp32, channels first)"
            types |= {"x_ptr": "*fp32", "x_column_stride": "i32"}
            yield from _by_sign(name, norm_quantize_kernel, channels, types, settings)


def _decode_norm() -> Iterator[Variant]:
    for mode in _MODES:
        types, settings = _norm_types(mode)
        types |= {"x_ptr": "*u8"} | _DECODING
        settings |= _BY_ROWS
        name = f"decode_norm_quantize ({mode}"
        yield from _by_sign(f"{name}; {_PAIR})", norm_quantize_kernel, _PAIR, types, settings | {"y_ptr": None})
        for dtype in _FLOATS:
            normalized = types | {"y_ptr": f"*{dtype}"}
            yield from _by_sign(f"{name}, and {dtype}; {_PAIR})", norm_quantize_kernel, _PAIR, normalized, settings)


def _norm_types(mode: str) -> tuple[dict[str, str], dict[str, object]]:
    """Return types and settings of all arguments except the source and the normalized floats."""
    types = dict.fromkeys(("gain_ptr", "bias_ptr", "scale_ptr"), "*fp32") | {"codes_ptr": "*i8", "eps": "fp32"}
    zero = mode != "symmetric"
    return types | ({"zero_ptr": "*i32"} if zero else {}), _mode(mode, zero)


def _mode(mode: str, zero: bool) -> dict[str, object]:
    low, high = _MODES[mode]
    return {"MODE": mode, "LOW": low, "HIGH": high} | ({} if zero else {"zero_ptr": None})


def _by_sign(
    name: str, kernel: object, channels: int, types: Mapping[str, str], settings: Mapping[str, object]
) -> Iterator[Variant]:
    """Yield variants for symmetric rows, which store whether a value is negative, and for affine rows, which read it.

    Affine variants also exist without this read. Those with it need no more registers, so only their widest rows are
    compiled.
    """
    says = settings["MODE"] == "symmetric"
    asked, alone = {**types, "below_zero_ptr": "*i32"}, {**settings, "below_zero_ptr": None}
    yield _rows(name, kernel, channels, asked if says else types, settings if says else alone)
    if settings["MODE"] == "affine" and channels in (_EMBEDDING, _HIDDEN):
        yield _rows(f"{name[:-1]}; unsigned)", kernel, channels, asked, settings)


def _token_outlier(channels: int) -> Iterator[Variant]:
    for dtype in _FLOATS:
        for bits in (4, 8):
            types = {"x_ptr": f"*{dtype}", "codes_ptr": "*u8" if bits == 4 else "*i8", "scale_ptr": "*bf16"}
            types |= {"outlier_ptr": "*i16", "index_ptr": "*i8" if channels == 128 else "*i16", "codes_stride": "i32"}
            settings = {"OUTLIERS": 4, "BITS": bits, "LARGEST": 2 ** (bits - 1) - 1}
            name = f"quantize_token_outlier ({bits} bits, 4 outliers; {channels} x {dtype})"
            tile = RowTile.of(channels, TILE_ELEMENTS)
            yield _rows(name, quantize_token_outlier_kernel, channels, types, settings, tile)


def _rows(
    name: str,
    kernel: object,
    channels: int,
    types: Mapping[str, str],
    settings: Mapping[str, object],
    tile: RowTile | None = None,
) -> Variant:
    tile = tile or RowTile.of(channels)
    sizes = {name: "i32" for name in ("M", "C", "x_stride") if name not in settings}
    blocks = {"BLOCK_M": tile.block_m, "BLOCK_C": tile.block_c}
    options = {"num_warps": tile.num_warps, **UNFUSED}
    return Variant(
        name,
        kernel,
        {**types, **sizes},
        {**settings, **blocks},
        options,
        ("C", "x_stride", "x_column_stride"),
        integer=False,
    )


def _outer() -> Iterator[Variant]:
    tile = RowTile.of(64)
    for dtype in _FLOATS:
        types = {"q_ptr": f"*{dtype}", "k_ptr": f"*{dtype}", "scale_ptr": "*fp32", "zero_ptr": "*i32"}
        types |= {"codes_ptr": "*i8"} | dict.fromkeys(("J", "D", "q_stride", "k_stride"), "i32")
        settings = {"LOW": -128, "HIGH": 127, "BLOCK_J": tile.block_m, "BLOCK_D": tile.block_c}
        options = {"num_warps": tile.num_warps, **UNFUSED}
        aligned = ("D", "q_stride", "k_stride")
        yield Variant(
            f"outer_quantize (64 x {dtype})", outer_quantize_kernel, types, settings, options, aligned, integer=False
        )
