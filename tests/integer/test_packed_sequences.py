"""Packing loses nothing but padding."""

import torch

from protquant.integer.packed_sequences import PackedSequences

VALID = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [1, 0, 1, 1, 0]], dtype=torch.bool)


def test_rows_come_back_to_their_places():
    packed = PackedSequences(VALID)
    batch = torch.randn(4, 5, 6)
    rows = batch[VALID]
    assert len(packed) == len(rows) == 10
    assert packed.positions.tolist() == [0, 1, 2, 1, 2, 3, 4, 0, 2, 3]
    assert torch.equal(packed.unpack(rows), batch * VALID[:, :, None])
    kept = torch.full((4, 5, 6), 7.0)
    assert torch.equal(packed.unpack(rows, kept), torch.where(VALID[:, :, None], batch, 7.0))


def test_attention_comes_back_to_its_places():
    packed = PackedSequences(VALID)
    maps = [torch.randn(2, n, n) for n in (3, 4, 3)]
    batch = packed.unpack_maps(maps, torch.zeros(4, 2, 5, 5))
    for row, some in zip((0, 2, 3), maps, strict=True):
        assert torch.equal(batch[row][:, VALID[row]][:, :, VALID[row]], some)
    assert batch.count_nonzero() == sum(some.numel() for some in maps)


def test_tiles_hold_whole_sequences():
    packed = PackedSequences(VALID)
    assert [tile.rows for tile in packed.tiles(None)] == [slice(0, 10)]
    assert [tile.rows for tile in packed.tiles(7)] == [slice(0, 7), slice(7, 10)]
    assert packed.tiles(7)[0].sequences == (slice(0, 3), slice(3, 7))
    assert [tile.rows for tile in packed.tiles(1)] == [slice(0, 3), slice(3, 7), slice(7, 10)]


def test_sequences_of_similar_length_are_padded_together():
    lengths = (3, 9, 5, 4, 2)
    (tile,) = PackedSequences(torch.arange(9) < torch.tensor(lengths)[:, None]).tiles(None)
    assert tile.length is None
    rows = torch.arange(sum(lengths))
    whole = [rows[some] for some in tile.sequences]
    batches = tile.padded
    assert [batch.length for batch in batches] == [9, 4]
    assert [batch.valid.sum(1).tolist() for batch in batches] == [[9, 5], [4, 3, 2]]
    for batch, expected in zip(batches, ([1, 2], [3, 0, 4]), strict=True):
        read = rows[batch.rows].view(batch.valid.shape)
        assert all(torch.equal(r[v], whole[i]) for r, v, i in zip(read, batch.valid, expected, strict=True))
        assert torch.equal(rows[batch.rows][batch.places], batch.tokens)
    assert torch.cat([batch.tokens for batch in batches]).sort().values.equal(rows)


def test_sequences_of_one_length_are_no_padding():
    packed = PackedSequences(VALID)
    assert [tile.length for tile in packed.tiles(1)] == [3, 4, 3]


def test_a_batch_of_nothing_but_padding_has_no_tiles():
    packed = PackedSequences(torch.zeros(2, 3, dtype=torch.bool))
    assert packed.tiles(None) == packed.tiles(5) == []
    assert torch.equal(packed.unpack(torch.empty(0, 4)), torch.zeros(2, 3, 4))
    assert PackedSequences(torch.zeros(0, 3, dtype=torch.bool)).unpack(torch.empty(0, 4)).shape == (0, 3, 4)
