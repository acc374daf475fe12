"""Attention on codes gives what attention on decoded values gives."""

import pytest
import torch

from protquant.kernels.cpu import features
from protquant.kernels.cpu.sequence_attention import attention_of_codes

HEADS, CHANNELS, SCALE = 3, 16, 0.002

pytestmark = pytest.mark.skipif(not features().int_mm, reason="this build of torch has no int8 product")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("zeros", [(0, 0), (-50, 13)])
def test_sequences_of_any_length_attend_to_themselves(
    dtype: torch.dtype, tolerance: float, zeros: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("protquant.kernels.cpu.sequence_attention.LONGEST", 150)
    monkeypatch.setattr("protquant.kernels.cpu.sequence_attention.LOGITS", 2 * 127**2)  # two heads, then the third
    torch.manual_seed(0)
    lengths = [1, 3, 17, 127, 129, 200]
    tokens = sum(lengths)
    # Not contiguous: tokens first in memory.
    q, k = (torch.randint(-128, 128, (tokens, HEADS, CHANNELS), dtype=torch.int8).transpose(0, 1) for _ in range(2))
    v = torch.randint(-127, 128, (HEADS, tokens, CHANNELS)).to(dtype)
    sequences, start = [], 0
    for length in lengths:
        sequences.append(slice(start, start + length))
        start += length
    out = attention_of_codes(q, k, v, sequences, SCALE, *zeros)
    assert out.shape == (tokens, HEADS, CHANNELS) and out.dtype == torch.float32
    for some in sequences:
        logits = SCALE * (q[:, some].double() - zeros[0]) @ (k[:, some].double() - zeros[1]).mT
        expected = (logits.softmax(-1) @ v[:, some].double()).transpose(0, 1)
        torch.testing.assert_close(out[some].double(), expected, rtol=tolerance, atol=tolerance * 127)


def test_no_sequences_are_no_rows():
    none = torch.empty(HEADS, 0, CHANNELS, dtype=torch.int8)
    assert attention_of_codes(none, none, none.float(), [], SCALE).shape == (0, HEADS, CHANNELS)
