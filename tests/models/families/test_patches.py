"""The patch embedding as a product: the convolution's numbers, and its own bits in float32."""

import pytest
import torch
from torch import nn

from raypatch.models.families.parts.patches import PatchConvolution, as_patch_convolution


def _convolutions(edge: int, *, bias: bool = True) -> tuple[nn.Conv2d, PatchConvolution]:
    torch.manual_seed(0)
    flat = nn.Conv2d(3, 32, edge, edge, bias=bias)
    return flat, as_patch_convolution(flat)


@pytest.mark.parametrize("edge", [1, 2, 4, 7, 14, 28])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_has_the_numbers_of_the_convolution(edge: int, bias: bool) -> None:
    """Both round what they take and give to bfloat16 and add in float32, in another order."""
    flat, patches = _convolutions(edge, bias=bias)
    images = torch.randn(4, 3, 28, 28)
    exact = flat(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = patches(images)
    assert found.dtype == torch.bfloat16
    assert found.shape == exact.shape
    assert (found.float() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("edge", [2, 7, 28])
def test_gradients_are_those_of_the_convolution(edge: int) -> None:
    flat, patches = _convolutions(edge)
    images = torch.randn(4, 3, 28, 28)
    weighted = torch.randn(4, 32, 28 // edge, 28 // edge)
    (flat(images) * weighted).sum().backward()
    assert flat.weight.grad is not None
    assert flat.bias is not None
    expected = flat.weight.grad.clone(), flat.bias.grad
    patches.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        embedded = patches(images)
    (embedded.float() * weighted).sum().backward()
    for gradient, exact in zip((patches.weight.grad, patches.bias.grad), expected, strict=True):
        assert (gradient - exact).abs().max() < 0.02 * exact.abs().max()


def test_float32_is_to_the_bit_what_it_was() -> None:
    flat, patches = _convolutions(4)
    images = torch.randn(2, 3, 28, 28)
    assert torch.equal(patches(images), flat(images))


def test_an_edge_that_does_not_divide_stays_a_convolution() -> None:
    flat, patches = _convolutions(4)
    images = torch.randn(2, 3, 30, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patches(images), flat(images))


def test_it_draws_nothing_and_shares_the_weights() -> None:
    torch.manual_seed(0)
    flat = nn.Conv2d(3, 32, 4, 4)
    after = torch.get_rng_state()
    patches = as_patch_convolution(flat)
    assert torch.equal(torch.get_rng_state(), after)
    assert patches.weight is flat.weight
    assert patches.state_dict().keys() == flat.state_dict().keys()
