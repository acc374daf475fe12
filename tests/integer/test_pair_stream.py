"""What is kept of the pair after an update is what its format says, from the first update on."""

import pytest
import torch

from protquant.integer.pair_stream import PairStream, pair_codec
from protquant.kernels.cpu import CPUBackend
from protquant.quant.formats import format_from_config
from protquant.quant.modules import ActivationQuantizer
from protquant.quant.observers import Observer
from protquant.quant.ranges import Calibration
from protquant.sites import Tap

FORMATS = {
    "bfloat16": ({"format": "bfloat16"}, 2),
    "piecewise": ({"format": "piecewise_linear", "bits": 7, "mode": "asymmetric", "breakpoint": "numeric"}, 1),
    "uniform": ({"format": "uniform", "bits": 8, "symmetric": False}, 1),
    "token": ({"format": "uniform", "bits": 8, "symmetric": False, "granularity": "token"}, 4),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_are_rounded_as_the_simulation_rounds_them(name: str, transposed: bool):
    torch.manual_seed(0)
    config, nbytes = FORMATS[name]
    pair, update = 20 * torch.randn(2, 5, 5, 8).exp(), torch.randn(2, 5, 5, 8)
    observer = Observer("pair")
    observer.update(pair)
    observer.end_sequence()
    form = format_from_config(config)
    assert form is not None
    tap = ActivationQuantizer("pair", form.for_activation(observer.statistics(), Calibration(range="minmax")))
    codec = pair_codec(tap, CPUBackend())
    stream, expected = PairStream(pair.clone()), pair
    for _ in range(2):
        for index, rows in enumerate(stream.begin(codec)):
            view = rows.transposed() if transposed else rows
            for some in (slice(0, 2), slice(2, 5)):
                tile = view.read(some)
                tile += (update[index].transpose(0, 1) if transposed else update[index])[some]
                view.write(some, tile)
        stream.commit()
        expected = tap(expected + update)
    torch.testing.assert_close(stream.floats(), expected, rtol=1e-6, atol=1e-6)
    assert stream.nbytes == nbytes * pair.numel()


def test_without_a_format_the_pair_is_updated_where_it_is():
    pair = torch.zeros(1, 3, 3, 2)
    stream = PairStream(pair)
    assert pair_codec(Tap("residual"), CPUBackend()) is None
    (rows,) = stream.begin(None)
    tile = rows.read(slice(0, 3))
    tile += 1
    rows.write(slice(0, 3), tile)
    stream.commit()
    assert torch.equal(pair, torch.ones(1, 3, 3, 2))
