"""Gradients pass where values lie on a grid; the values are those of the quantizer."""

import pytest
import torch

from protquant.quant.formats import Uniform
from protquant.quant.straight_through import round_straight_through, straight_through

X = torch.tensor([[-2.0, -0.4, 0.1, 0.9, 3.0]])


def test_values_are_those_of_the_quantizer_and_clipped_ones_get_no_gradient():
    quantizer = Uniform(bits=4).fit(torch.tensor(-1.0), torch.tensor(1.0))
    x = X.clone().requires_grad_()
    y = straight_through(quantizer, x)
    assert torch.equal(y, quantizer(X))
    (y * torch.arange(1.0, 6)).sum().backward()
    assert x.grad.tolist() == [[0, 2, 3, 4, 0]]


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_scale_per_token_clips_nothing_so_that_all_get_a_gradient(symmetric):
    quantizer = Uniform(bits=4, granularity="token", symmetric=symmetric).for_activation(None, None)
    x = (7 * X).requires_grad_()
    y = straight_through(quantizer, x)
    assert torch.equal(y, quantizer(7 * X))
    y.sum().backward()
    assert x.grad.eq(1).all()


def test_without_gradients_it_is_the_quantizer():
    quantizer = Uniform(bits=4).fit(torch.tensor(-1.0), torch.tensor(1.0))
    assert torch.equal(straight_through(quantizer, X), quantizer(X))
    assert not straight_through(quantizer, X).requires_grad


def test_rounding_has_the_derivative_one():
    x = X.clone().requires_grad_()
    y = round_straight_through(x)
    assert torch.equal(y, X.round())
    y.sum().backward()
    assert x.grad.eq(1).all()
