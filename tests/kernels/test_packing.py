"""Packed codes come back, take the bytes that they should, and lie where other programs look for them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protquant.kernels.packing import (
    pack4,
    pack_bits,
    pack_nibbles,
    packed_length,
    unpack4,
    unpack_bits,
    unpack_nibbles,
)


@given(bits=st.integers(1, 8), data=st.data())
def test_codes_of_any_width_come_back_and_take_no_bit_more(bits: int, data: st.DataObject):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70))
    packed = pack_bits(torch.tensor(codes, dtype=torch.uint8), bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_length(len(codes), bits) == -(-len(codes) * bits // 8)
    assert unpack_bits(packed, bits, len(codes)).tolist() == codes


@given(st.lists(st.integers(0, 7), max_size=40))
def test_the_stream_of_bits_is_numpys_little_endian_one(codes: list[int]):
    array = np.array(codes, dtype=np.uint8).reshape(-1, 1)
    bits = np.unpackbits(array, axis=1, count=3, bitorder="little")
    expected = np.packbits(bits, bitorder="little").tolist()
    assert pack_bits(torch.tensor(codes, dtype=torch.int32), 3).tolist() == expected


def test_two_four_bit_codes_share_a_byte_the_first_in_its_low_half():
    assert pack_bits(torch.tensor([[0x1, 0x2], [0xF, 0x8]]), 4).tolist() == [0x21, 0x8F]


@pytest.mark.parametrize("codes", [[16], [-1], [3, 255]])
def test_codes_that_do_not_fit_are_refused(codes: list[int]):
    with pytest.raises(ValueError, match="do not fit into 4 bits"):
        pack_bits(torch.tensor(codes), 4)


def test_a_truncated_pack_is_refused():
    packed = pack_bits(torch.arange(8), 3)
    with pytest.raises(ValueError, match="take 3 bytes, not 2"):
        unpack_bits(packed[:2], 3, 8)


@pytest.mark.parametrize("bits", [0, 9])
def test_widths_that_no_byte_holds_are_refused(bits: int):
    with pytest.raises(ValueError, match="1 to 8"):
        pack_bits(torch.arange(2), bits)


@pytest.mark.parametrize("k", [0, 1, 2, 17])
def test_rows_of_nibbles_begin_with_a_byte_of_their_own(k: int):
    codes = torch.randint(0, 16, (3, k), dtype=torch.uint8)
    packed = pack_nibbles(codes)
    assert packed.shape == (3, -(-k // 2))
    assert torch.equal(unpack_nibbles(packed, k), codes)
    for row in range(3):
        assert torch.equal(pack_nibbles(codes[row : row + 1])[0], packed[row])
    with pytest.raises(ValueError, match=f"{k + 2} channels of 4 bits take {k // 2 + k % 2 + 1} bytes"):
        unpack_nibbles(packed, k + 2)


@pytest.mark.parametrize("rows", [0, 1, 4, 5])
def test_halves_of_the_rows_share_bytes(rows: int):
    codes = torch.randint(0, 16, (rows, 3), dtype=torch.uint8)
    packed = pack4(codes)
    assert packed.shape == (-(-rows // 2), 3)
    assert torch.equal(unpack4(packed, rows), codes)
    assert torch.equal(packed & 15, codes[: len(packed)])
