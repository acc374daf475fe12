"""Tensors come back from their entries as they were, through JSON."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protquant.checkpoints.stored_tensors import TensorReader, TensorWriter
from protquant.quant import PiecewiseLinear, Uniform
from protquant.quant.packed_codes import PackedCodes

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def through_a_file(tensor: Tensor) -> Tensor:
    writer = TensorWriter()
    entry = json.loads(json.dumps(writer.put("x", tensor)))
    return TensorReader(dict(writer.tensors)).get("x", entry)


@given(
    shape=SHAPES,
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 999),
    spread=st.sampled_from([0, 1, 100, 2**20]),
    offset=st.sampled_from([0, -7, 2**33]),
)
def test_every_tensor_comes_back(
    shape: tuple[int, ...], dtype: torch.dtype, seed: int, spread: int, offset: int
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread
    tensor = x.round().long().add(offset).to(dtype) if dtype == torch.int64 else x.abs().clamp(max=255).to(dtype)
    back = through_a_file(tensor)
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(back, tensor)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_what_json_has_no_word_for_comes_back(value: float) -> None:
    assert torch.equal(through_a_file(torch.tensor([1.0, value])).nan_to_num(), torch.tensor([1.0, value]).nan_to_num())


def test_a_few_numbers_are_written_where_people_read_them() -> None:
    writer = TensorWriter()
    assert writer.put("scale", torch.tensor(0.125)) == {"float32": 0.125}
    assert writer.put("codes", torch.tensor([-8, 7], dtype=torch.int32)) == {"int32": [-8, 7]}
    assert not writer.tensors


def test_integers_take_the_bits_of_their_range() -> None:
    writer = TensorWriter()
    entry = writer.put("zero_point", torch.arange(100, 116, dtype=torch.int32))
    assert entry == {"dtype": "int32", "shape": [16], "bits": 4, "low": 100}
    assert writer.tensors["zero_point"].numel() == 8


@pytest.mark.parametrize(
    ("form", "bits"),
    [
        (Uniform(4, granularity="channel"), 4),
        (Uniform(12), 12),
        (PiecewiseLinear(4, "asymmetric", "numeric"), 5),
        (PiecewiseLinear(4, "overlapping", "numeric"), 5),
        (PiecewiseLinear(8, "ptq4protein", "numeric"), 9),
        (PiecewiseLinear(3, "non_overlapping", "numeric"), 4),
    ],
    ids=lambda each: str(getattr(each, "label", each)),
)
def test_codes_of_a_weight_take_their_bits_and_come_back(form, bits: int) -> None:
    weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(0)).pow(3)
    quantizer = form.for_weight(weight)
    encoded = quantizer.encode(weight)
    writer = TensorWriter()
    packed = PackedCodes.pack(encoded, quantizer.code_bits, weight.dtype)
    entry = json.loads(json.dumps(writer.put_codes("weight", packed)))
    assert entry["bits"] == bits
    assert writer.tensors["weight"].numel() == 24 * 16 * bits // 8
    back = TensorReader(dict(writer.tensors)).get_codes("weight", entry).unpack()
    assert torch.equal(back.codes, encoded.codes)
    assert back.codes.dtype == encoded.codes.dtype
    assert torch.equal(quantizer.decode(back), quantizer.decode(encoded))


def test_codes_that_no_piece_has_are_refused() -> None:
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    writer = TensorWriter()
    entry = writer.put_codes("weight", PackedCodes.pack(Uniform(4).for_weight(weight).encode(weight), 4, weight.dtype))
    entry["pieces"] = [[None, -7, 3]]
    with pytest.raises(ValueError, match="there are 3"):
        TensorReader(dict(writer.tensors)).get_codes("weight", entry).unpack()
