"""Predictions are what bytes, operations and published rates give."""

import pytest

from protquant.bench.roofline import GPUS, Work, kernel_work, predict, roofline


def test_the_slower_of_memory_and_matrix_units_is_the_bound():
    gpu = GPUS["H100"]
    moves, computes = Work("k", "s", 1, 1979e6, 3350e6), Work("k", "s", 1, 1979e9, 3350e3)
    assert (predict(moves, gpu).bound, predict(moves, gpu).microseconds) == ("memory", pytest.approx(1000))
    assert (predict(computes, gpu).bound, predict(computes, gpu).microseconds) == ("matrix units", pytest.approx(1000))


def test_work_is_counted_by_hand():
    work = {each.kernel: each for each in kernel_work(256)}
    assert work["triangle_product"].operations == 2 * 128 * 256**3
    assert work["triangle_product"].bytes == 256 * 256 * 128 * (1 + 1 + 2)
    assert work["attention_int8"].operations == 4 * 256**3 * 128
    assert work["transition_int8"].operations == 4 * 65536 * 128 * 512
    assert work["linear_int8"].operations == 2 * 65536 * 128 * 640
    assert work["layer_norm_quantize"].operations == 0


def test_int4_weights_move_fewer_bytes():
    work = {each.kernel: each for each in kernel_work(256)}
    assert work["linear_int4"].bytes < work["linear_int8"].bytes


def test_twice_the_length_is_eight_times_the_products_of_triangles():
    short, long = ({each.kernel: each for each in kernel_work(length)} for length in (256, 512))
    for kernel in ("triangle_product", "attention_int8"):
        assert long[kernel].operations == 8 * short[kernel].operations
        assert long[kernel].bytes == 4 * short[kernel].bytes


def test_every_kernel_is_predicted_at_every_length_on_every_gpu():
    rows = roofline()
    assert len(rows) == len({(row.kernel, row.length, row.gpu) for row in rows}) == 6 * 3 * 3
    assert all(row.microseconds > 0 for row in rows)
