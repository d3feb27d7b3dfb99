"""bfloat16 weights beside float32 masters: the numbers of autocast, without its casts."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from raypatch.training.steps.rounded import RoundedWeights


class _Net(nn.Module):
    """A convolution, a norm, one linear layer used twice, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.hidden = nn.Linear(16, 16)
        self.tied = nn.Linear(16, 16)
        self.tied.weight = self.hidden.weight
        self.idle = nn.Linear(16, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        hidden = F.gelu(self.hidden(self.norm(tokens)))
        return self.head(self.tied(hidden).mean(dim=1))


def _batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(size, 1, 8, 8, generator=random), torch.arange(size) % 2


def _loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch[0])
    return F.cross_entropy(logits.float(), batch[1])


def _train(model: nn.Module, rounded: RoundedWeights | None, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    losses = []
    for _ in range(steps):
        if rounded is None:
            loss = _loss(model, _batch())
            loss.backward()
        else:
            rounded.round()
            with rounded.in_place():
                loss = _loss(model, _batch())
                loss.backward()
                rounded.add_gradients()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def test_the_numbers_are_those_of_autocast() -> None:
    """To the bit where a weight is used once; of one used twice the gradients are summed in bfloat16."""
    torch.manual_seed(0)
    cast = _Net()
    cast.tied = nn.Linear(16, 16)
    kept = copy.deepcopy(cast)
    assert _train(kept, RoundedWeights(kept), 5) == _train(cast, None, 5)
    assert all(torch.equal(*pair) for pair in zip(kept.parameters(), cast.parameters(), strict=True))


def test_a_weight_used_twice_is_one_copy() -> None:
    torch.manual_seed(0)
    cast = _Net()
    kept = copy.deepcopy(cast)
    assert _train(kept, RoundedWeights(kept), 5) == pytest.approx(_train(cast, None, 5), rel=1e-2)
    assert kept.tied.weight is kept.hidden.weight


def test_gradients_of_several_passes_are_added_in_float32() -> None:
    torch.manual_seed(0)
    model = _Net()
    rounded = RoundedWeights(model)
    with rounded.in_place():
        (_loss(model, _batch()) / 256).backward()
        rounded.add_gradients()
    one = model.head.weight.grad
    assert one is not None
    one = one.clone()
    for _ in range(255):
        with rounded.in_place():
            (_loss(model, _batch()) / 256).backward()
            rounded.add_gradients()
    # bfloat16 would stop to grow at about 2^8 times the first gradient's last bit.
    assert torch.allclose(model.head.weight.grad, 256 * one, rtol=1e-4)


def test_a_pass_that_breaks_off_leaves_masters_and_no_gradients() -> None:
    model = _Net()
    before = dict(model.named_parameters())
    rounded = RoundedWeights(model)

    def break_off() -> None:
        with rounded.in_place():
            assert model.head.weight.dtype == torch.bfloat16
            _loss(model, _batch()).backward()
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        break_off()
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    with rounded.in_place():
        assert model.head.weight.grad is None
        rounded.add_gradients()
    assert model.head.weight.grad is None


def test_what_gets_no_gradient_and_what_is_frozen_has_none() -> None:
    """A gradient of zeros would let weight decay move what no loss reaches."""
    model = _Net()
    model.embed.requires_grad_(False)
    rounded = RoundedWeights(model)
    with rounded.in_place():
        _loss(model, _batch()).backward()
        rounded.add_gradients()
    assert model.idle.weight.grad is None
    assert model.embed.weight.grad is None
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.dtype == torch.float32
