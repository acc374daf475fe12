"""References of the pair track's kernels, put together, are the modules of the float model on decoded operands."""

import pytest
import torch
from torch import Tensor, nn

from protquant.kernels.operands import Grid, IntegerWeight
from protquant.kernels.reference.attention import attention
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.kernels.reference.gated_projection import gated_projection
from protquant.kernels.reference.quantize import quantize
from protquant.kernels.reference.triangle_product import triangle_product
from protquant.kernels.reference.uniform import encode_uniform
from protquant.models.triangle import TriangleAttention, TriangleMultiplication
from protquant.models.trunk import SingleAttention, Transition

LENGTH, CHANNELS, HEADS = 23, 16, 2
# An affine grid of int8 that holds what is normalised, or projected of it.
GRID = Grid(8 / 255, 11, -128, 127)


def int8_weight(*linears: nn.Linear) -> IntegerWeight:
    """Codes of the weights of layers, one below the other; the layers themselves are given what they mean."""
    parts = []
    for linear in linears:
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        codes = encode_uniform(linear.weight.detach(), scale, None, -127, 127).to(torch.int8)
        linear.weight.data = codes.float() * scale
        parts.append((codes, scale, torch.zeros(len(codes)) if linear.bias is None else linear.bias.detach()))
    codes, scale, bias = map(torch.cat, zip(*parts, strict=True))
    return IntegerWeight(codes, scale, None, bias, len(codes))


class Recorded(nn.Module):
    """In the place of a tap: values as their codes mean them, and the codes."""

    codes: Tensor
    values: Tensor

    def forward(self, x: Tensor) -> Tensor:
        codes = quantize(x.flatten(0, -2), GRID)
        self.codes, self.values = codes.data.view(x.shape), codes.decode().view(x.shape)
        return self.values


def with_weights(module: nn.Module) -> nn.Module:
    """Weights that matter, and no normalisation: tests begin behind it, with its codes."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    module.norm = nn.Identity()
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_gated_projections_and_their_product_are_triangle_multiplication(direction):
    module = with_weights(TriangleMultiplication(CHANNELS, direction))
    module.left, module.right = Recorded(), Recorded()
    module.out_norm = Recorded()  # what the product gives is what the normalisation gets
    # Both operands in one call: their weights are stacked.
    proj, gate = int8_weight(module.left_proj, module.right_proj), int8_weight(module.left_gate, module.right_gate)
    x = quantize(torch.randn(LENGTH**2, CHANNELS), GRID)
    mask = torch.rand(LENGTH) > 0.2
    pair_mask = mask[:, None] & mask[None, :]
    product = []
    module.out_norm.register_forward_pre_hook(lambda _, args: product.append(args[0]))
    module(x.decode().view(1, LENGTH, LENGTH, CHANNELS), pair_mask[None])
    operands = gated_projection(x, proj, gate, GRID, pair_mask.flatten()).unflatten(1, (LENGTH, LENGTH))
    left, right = operands.chunk(2)
    for found, recorded in ((left, module.left), (right, module.right)):
        expected = recorded.codes[0].permute(2, 0, 1)
        apart = (found.int() - expected.int()).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 0.001  # on the edge of two codes
        assert (found[:, ~pair_mask] == GRID.zero).all()
    left, right = (tap.codes[0].permute(2, 0, 1) for tap in (module.left, module.right))
    found = GRID.scale**2 * triangle_product(left, right, (GRID, GRID), direction)
    torch.testing.assert_close(found.permute(1, 2, 0).float(), product[0][0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("node", ["starting", "ending"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_attention_is_that_of_triangles(node, is_masked: bool):
    module = with_weights(TriangleAttention(CHANNELS, CHANNELS // HEADS, HEADS, node))
    module.q, module.k, module.v = Recorded(), Recorded(), Recorded()
    pair = torch.randn(1, LENGTH, LENGTH, CHANNELS)
    mask = torch.rand(LENGTH) > 0.3 if is_masked else torch.ones(LENGTH, dtype=torch.bool)
    pair_mask = mask[None, :, None] & mask[None, None, :]  # rows of masked residues have no key at all
    expected = module(pair, pair_mask)
    if node == "ending":
        pair, expected = pair.transpose(1, 2), expected.transpose(1, 2)
    q, k, v = (getattr(module, name).values[0] for name in "qkv")
    bias = module.bias_proj(pair[0]).permute(2, 0, 1)[None]
    heads = attention(q, k, v, bias, pair_mask[0], 1.0)
    found = module.out_proj(module.gate_proj(pair[0]).sigmoid() * heads.flatten(-2))
    torch.testing.assert_close(found[mask], expected[0][mask], rtol=1e-5, atol=1e-5)
    # Added to -1e9, a logit counts for nothing: keys of rows without a valid one count alike, as the model has it.
    torch.testing.assert_close(found, expected[0], rtol=1e-3, atol=1e-3)
    if is_masked:
        mean = v[~mask].mean(2)
        torch.testing.assert_close(heads[~mask], mean[:, None].expand(-1, LENGTH, -1, -1), rtol=1e-4, atol=1e-4)


def test_attention_is_that_of_the_single_representation():
    module = with_weights(SingleAttention(4 * CHANNELS, CHANNELS))
    module.q, module.k, module.v = Recorded(), Recorded(), Recorded()
    x, bias = torch.randn(2, LENGTH, 4 * CHANNELS), torch.randn(2, 4, LENGTH, LENGTH)
    mask = torch.rand(2, LENGTH) > 0.3
    expected = module(x, bias, mask)
    heads = attention(*(getattr(module, name).values for name in "qkv"), bias, mask, 1.0)
    found = module.out_proj(module.gate_proj(x).sigmoid() * heads.flatten(-2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hidden", [Grid(4 / 255, -128, -128, 127), Grid(4 / 127, 0, 0, 127)])
def test_transition_is_that_of_the_trunk(hidden: Grid):
    module, backend = with_weights(Transition(CHANNELS)), ReferenceBackend()
    up = backend.prepare(int8_weight(module.up_proj), GRID, "relu", [(hidden, module.up_proj.out_features)])
    down = backend.prepare(int8_weight(module.down_proj), hidden)
    x, residual = quantize(torch.randn(LENGTH, CHANNELS), GRID), torch.randn(LENGTH, CHANNELS)
    module.down_proj.register_forward_pre_hook(lambda _, args: quantize(args[0], hidden).decode())
    found = backend.perceptron_add_(x, up, down, residual.clone())
    apart = (found - residual - module(x.decode())).abs()
    assert apart.quantile(0.99) < 1e-5  # a hidden value on the edge of two codes may move the rest of its row
    assert apart.max() < 4 * hidden.scale * module.down_proj.weight.abs().max()


def test_pairs_are_products_and_differences_of_residues():
    torch.manual_seed(0)
    q, k = torch.randn(5, 8).chunk(2, dim=-1)
    codes = ReferenceBackend().outer_codes(q, k, GRID).data.view(5, 5, 8)
    for i in range(5):
        for j in range(5):
            pair = torch.cat((q[j] * k[i], q[j] - k[i]))
            assert torch.equal(codes[i, j], quantize(pair[None], GRID).data[0])
