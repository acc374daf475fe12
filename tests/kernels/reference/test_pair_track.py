"""References of the pair track's kernels, put together, are the modules of the float model on decoded operands."""

import pytest
import torch
from torch import Tensor, nn

from protquant.kernels.reference.attention import attention_int8
from protquant.kernels.reference.gated_projection import gated_projection
from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.reference.transition import transition_int8
from protquant.kernels.reference.triangle_product import triangle_product
from protquant.kernels.reference.uniform import decode_uniform, encode_uniform
from protquant.models.triangle import TriangleAttention, TriangleMultiplication
from protquant.models.trunk import SingleAttention, Transition

LENGTH, CHANNELS, HEADS = 23, 16, 2
# An affine grid of int8 that holds what is normalised, or projected of it.
STEP, ZERO = torch.tensor(8 / 255), torch.tensor(11)


def int8_weight(linear: nn.Linear) -> Int8Projection:
    """Codes of a layer's weight; the layer itself is given what they mean."""
    scale = linear.weight.detach().abs().amax(1) / 127
    codes = encode_uniform(linear.weight.detach(), scale[:, None], None, -127, 127).to(torch.int8)
    linear.weight.data = codes.float() * scale[:, None]
    return Int8Projection(codes, scale, None if linear.bias is None else linear.bias.detach())


def encode(x: Tensor) -> Tensor:
    return encode_uniform(x, STEP, ZERO, -128, 127).to(torch.int8)


def decode(codes: Tensor) -> Tensor:
    return decode_uniform(codes, STEP, ZERO)


class Recorded(nn.Module):
    """In the place of a tap: values as their codes mean them, and the codes."""

    codes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.codes = encode(x)
        return decode(self.codes)


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
    proj, gate = (
        Int8Projection(*map(torch.cat, zip(*(int8_weight(layer)[:3] for layer in layers), strict=True)))
        for layers in ((module.left_proj, module.right_proj), (module.left_gate, module.right_gate))
    )
    x = encode(torch.randn(LENGTH, LENGTH, CHANNELS))
    mask = torch.rand(LENGTH) > 0.2
    pair_mask = mask[:, None] & mask[None, :]
    product = []
    module.out_norm.register_forward_pre_hook(lambda _, args: product.append(args[0]))
    module(decode(x)[None], pair_mask[None])
    operands = gated_projection(
        x.flatten(0, 1),
        STEP[None],
        proj,
        gate,
        STEP,
        x_zero=ZERO[None],
        mask=pair_mask.flatten(),
        out_zero=ZERO,
        out_layout="channels",
    ).unflatten(1, (LENGTH, LENGTH))
    left, right = operands.chunk(2)
    for found, recorded in ((left, module.left), (right, module.right)):
        expected = recorded.codes[0].permute(2, 0, 1)
        apart = (found.int() - expected.int()).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 0.001  # on the edge of two codes
        assert (found[:, ~pair_mask] == ZERO).all()
    left, right = (tap.codes[0].permute(2, 0, 1) for tap in (module.left, module.right))
    found = triangle_product(left, right, direction, STEP, STEP, left_zero=ZERO, right_zero=ZERO)
    torch.testing.assert_close(found, product[0][0], rtol=1e-5, atol=1e-4)


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
    codes = {name: getattr(module, name).codes[0] for name in "qkv"}
    given = {f"{name}_scale": STEP for name in "qkv"} | {f"{name}_zero": ZERO for name in "qkv"}
    bias = module.bias_proj(pair[0]).permute(2, 0, 1)[None]
    heads = attention_int8(**codes, **given, bias=bias, mask=pair_mask[0])
    found = module.out_proj(module.gate_proj(pair[0]).sigmoid() * heads.flatten(-2))
    torch.testing.assert_close(found[mask], expected[0][mask], rtol=1e-5, atol=1e-5)
    # Added to -1e9, a logit counts for nothing: keys of rows without a valid one count alike, as the model has it.
    torch.testing.assert_close(found, expected[0], rtol=1e-3, atol=1e-3)
    if is_masked:
        mean = decode(codes["v"][~mask]).mean(2)
        torch.testing.assert_close(heads[~mask], mean[:, None].expand(-1, LENGTH, -1, -1), rtol=1e-4, atol=1e-4)


def test_attention_is_that_of_the_single_representation():
    module = with_weights(SingleAttention(4 * CHANNELS, CHANNELS))
    module.q, module.k, module.v = Recorded(), Recorded(), Recorded()
    x, bias = torch.randn(2, LENGTH, 4 * CHANNELS), torch.randn(2, 4, LENGTH, LENGTH)
    mask = torch.rand(2, LENGTH) > 0.3
    expected = module(x, bias, mask)
    codes = {name: getattr(module, name).codes for name in "qkv"}
    given = {f"{name}_scale": STEP for name in "qkv"} | {f"{name}_zero": ZERO for name in "qkv"}
    heads = attention_int8(**codes, **given, bias=bias, mask=mask)
    found = module.out_proj(module.gate_proj(x).sigmoid() * heads.flatten(-2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("zero", "low"), [(-128, -128), (None, 0)])
def test_transition_is_that_of_the_trunk(zero: int | None, low: int):
    module = with_weights(Transition(CHANNELS))
    up, down = int8_weight(module.up_proj), int8_weight(module.down_proj)
    x, residual = encode(torch.randn(LENGTH, CHANNELS)), torch.randn(LENGTH, CHANNELS)
    hidden_step = torch.tensor(4.0) / (127 - low)
    hidden_zero = None if zero is None else torch.tensor(zero)

    def requantize(_: nn.Module, args: tuple[Tensor]) -> Tensor:
        return decode_uniform(encode_uniform(args[0], hidden_step, hidden_zero, low, 127), hidden_step, hidden_zero)

    module.down_proj.register_forward_pre_hook(requantize)
    given = {"x_zero": ZERO[None], "hidden_zero": hidden_zero, "out_low": low, "residual": residual}
    found = transition_int8(x, STEP[None], up, hidden_step, down, **given)
    expected = residual + module(decode(x))
    apart = (found - expected).abs()
    assert apart.quantile(0.99) < 1e-5  # a hidden value on the edge of two codes may move the rest of its row
    assert apart.max() < 4 * hidden_step * module.down_proj.weight.abs().max()
