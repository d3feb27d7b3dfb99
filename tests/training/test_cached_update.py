"""AdamW weight by weight: the numbers of the ordinary step."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from raypatch.training.steps.cached_update import LEAST_NUMBERS, CachedUpdate, can_update_in_cache
from raypatch.training.steps.rounded import RoundedWeights

EDGE = 256
CPU = torch.device("cpu")

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class _Net(nn.Module):
    """Two layers that are updated by themselves, a small one, and a large one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(EDGE, EDGE)
        self.norm = nn.LayerNorm(EDGE)
        self.second = nn.Linear(EDGE, EDGE)
        self.idle = nn.Linear(EDGE, EDGE)
        self.head = nn.Linear(EDGE, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.norm(self.first(features)).relu()))


def _model() -> _Net:
    torch.manual_seed(0)
    return _Net()


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0, "lr": 1e-3}]
    return torch.optim.AdamW(groups, lr=1e-2, fused=True)


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True)


def _backward(model: nn.Module, step: int, part: int = 0) -> None:
    random = torch.Generator().manual_seed(10 * step + part)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(torch.randn(8, EDGE, generator=random))
    outputs.float().square().mean().backward()


def _train(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, cached: bool, passes: int = 1, steps: int = 4
) -> None:
    rounded = RoundedWeights(model)
    update = CachedUpdate(rounded, optimizer)
    for step in range(4):
        rounded.round()
        with rounded.in_place():
            for part in range(passes):
                rounded.add_gradients()
                _backward(model, step, part)
            if cached:
                update.step()
            else:
                rounded.add_gradients()
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("make", [_adamw, _adam])
def test_weights_and_state_are_those_of_the_ordinary_step(make: MakeOptimizer, passes: int) -> None:
    assert EDGE**2 >= LEAST_NUMBERS
    ordinary, cached = _model(), _model()
    optimizers = make(ordinary), make(cached)
    _train(ordinary, optimizers[0], cached=False, passes=passes)
    _train(cached, optimizers[1], cached=True, passes=passes)
    assert all(torch.equal(*pair) for pair in zip(ordinary.parameters(), cached.parameters(), strict=True))
    for one, other in zip(ordinary.parameters(), cached.parameters(), strict=True):
        state, expected = optimizers[1].state[other], optimizers[0].state[one]
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_what_no_loss_reaches_stays() -> None:
    model = _model()
    before = copy.deepcopy(model.idle.state_dict())
    _train(model, _adamw(model), cached=True)
    assert all(torch.equal(before[name], value) for name, value in model.idle.state_dict().items())


def test_a_step_leaves_current_copies_and_a_loaded_weight_is_rounded_again() -> None:
    model = _model()
    optimizer = _adamw(model)
    rounded = RoundedWeights(model)
    update = CachedUpdate(rounded, optimizer)
    for step in range(2):
        rounded.round()
        with rounded.in_place():
            _backward(model, step)
            update.step()
        optimizer.zero_grad(set_to_none=True)
    first = next(weight for weight in rounded.trained if weight.master is model.first.weight)
    assert first.is_current
    assert torch.equal(first.copy, model.first.weight.bfloat16())
    model.load_state_dict(_model().state_dict())
    assert not first.is_current
    rounded.round()
    assert torch.equal(first.copy, model.first.weight.bfloat16())


def test_no_gradient_stays_behind_and_large_ones_have_none_in_float32() -> None:
    """Those would take as much memory as the model."""
    model = _model()
    rounded = RoundedWeights(model)
    update = CachedUpdate(rounded, _adamw(model))
    for step in range(2):
        with rounded.in_place():
            _backward(model, step)
            update.step()
        assert all(each.grad is None for each in model.parameters())
    kept = {weight.master: weight.gradient is not None for weight in rounded.trained}
    assert kept[model.head.weight]
    assert not kept[model.first.weight]


def test_optimizers_that_it_takes() -> None:
    model = _model()
    assert can_update_in_cache(_adamw(model), CPU)
    assert not can_update_in_cache(_adamw(model), torch.device("cuda"))
    assert not can_update_in_cache(torch.optim.AdamW(model.parameters()), CPU)
    assert not can_update_in_cache(torch.optim.SGD(model.parameters(), lr=0.1, fused=True), CPU)
