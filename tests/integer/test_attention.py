"""Gated attention is refused where operands are quantized in part."""

import copy

import pytest

from protquant.integer.operands import NoIntegerKernelError
from protquant.integer.triangle import IntegerTriangleAttention
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models.trunk import FoldingBlock
from protquant.sites import Tap


def test_operands_that_are_quantized_in_part_have_no_kernel(quantized_block: FoldingBlock):
    module = copy.deepcopy(quantized_block.tri_attn_end)
    module.k = Tap("matmul_operand")
    with pytest.raises(NoIntegerKernelError, match="here: of q, k and v some are in float and some are not"):
        IntegerTriangleAttention(module, ReferenceBackend(), "here")


def test_quantized_logits_have_no_kernel(quantized_block: FoldingBlock):
    module = copy.deepcopy(quantized_block.tri_attn_end)
    module.logits = module.q
    with pytest.raises(NoIntegerKernelError, match="here: attention logits or probabilities are quantized"):
        IntegerTriangleAttention(module, ReferenceBackend(), "here")
