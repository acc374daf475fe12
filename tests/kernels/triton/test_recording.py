"""What is recorded as a CUDA graph gives what it does kernel by kernel."""

import pytest
import torch

pytest.importorskip("triton")

from protquant.bench.baselines_trunk import TrunkWork, random_inputs
from protquant.demo.sizes import FOLDING_MODEL
from protquant.integer import to_integer
from protquant.integer.blocks import IntegerBlocks
from protquant.integer.language_model import IntegerESM2
from protquant.models import ESM2, ESM2Config
from protquant.models.alphabet import MASK, tokenize
from protquant.quant import calibrate, load_recipe, quantize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


@pytest.mark.parametrize("length", [64, 77])
def test_a_replay_is_the_same_bit_by_bit(length: int):
    with torch.device("cpu"):
        work = TrunkWork.random(FOLDING_MODEL.trunk, length, blocks=2, device="cuda")
        others = random_inputs(work.config, 48, protein=1, device="cuda")
        statistics = calibrate(work.blocks, [others], lambda model, three: model(*three))
        recorded, _ = to_integer(quantize(work.blocks, load_recipe("w8a8-int8"), statistics)[0])
        assert isinstance(recorded, IntegerBlocks)
        launched = recorded.with_recorder(records=False)
        for number in range(4):
            # Modes change between passes: what was made in one must not be bound to it.
            with torch.inference_mode(number % 2 == 1), torch.no_grad():
                single, pair = work.single + number, work.pair - number
                found = recorded(single.clone(), pair.clone(), work.mask)
                expected = launched(single.clone(), pair.clone(), work.mask)
            assert recorded.recorder.is_recorded == (number > 0)
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize(
    "sequences", [["MKTAYIAKQRQISFVKSHFS"] * 3, ["MKTAYIAKQRQISFVKSHFS", "GSHMLEDPVDAF", "MA", "KW"]]
)
def test_a_language_model_replays_the_same_bit_by_bit(sequences: list[str]):
    with torch.device("cpu"):
        torch.manual_seed(0)
        model = ESM2(ESM2Config(num_layers=2, dim=64, num_heads=4, ffn_dim=160)).eval().requires_grad_(False).cuda()
        tokens = tokenize(sequences, "cuda")
        statistics = calibrate(model, [tokens[:1]], lambda m, t: m.logits(t))
        recorded, _ = to_integer(quantize(model, load_recipe("w8a8-int8"), statistics)[0])
        assert isinstance(recorded, IntegerESM2)
        launched = recorded.with_recorder(records=False)
        for number in range(4):
            with torch.inference_mode(number % 2 == 1):
                masked = tokens.clone()
                masked[0, number + 1] = MASK
                assert torch.equal(recorded.logits(masked), launched.logits(masked))
            assert recorded.recorder.is_recorded == (number > 0)
