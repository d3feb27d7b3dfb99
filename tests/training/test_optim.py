"""Schedules equal torch's own; a checkpoint brings optimizer and model back exactly, or says that it cannot."""

from pathlib import Path

import pytest
import torch
from torch import nn

from raypatch.config import TrialConfig
from raypatch.training.checkpoints.checkpoint import (
    Progress,
    load_tensors,
    restore_training_state,
    save_tensors,
    training_state,
)
from raypatch.training.optim import learning_rates, make_optimizer, set_learning_rates
from raypatch.trial_fields.length import training_length


def _config(**fields: object) -> TrialConfig:
    return TrialConfig.model_validate({"dataset": "derma", "patch_size": 4} | fields)


def learning_rate(config: TrialConfig, epoch: int) -> float:
    """The rate of an epoch's first step; one step an epoch."""
    return learning_rates(config, training_length(config, config.batch_size), epoch)[0]


def test_step_schedule_is_torchs() -> None:
    config = _config(lr=0.1, epochs=10, step_epochs=3, step_gamma=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    for epoch in range(10):
        assert learning_rate(config, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_cosine_schedule_is_torchs_after_a_linear_warm_up() -> None:
    config = _config(lr=0.1, epochs=12, schedule="cosine", warmup_epochs=2)
    assert [learning_rate(config, epoch) for epoch in (0, 1, 2)] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(2, 12):
        assert learning_rate(config, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_constant_schedule_stays() -> None:
    assert {learning_rate(_config(schedule="constant", epochs=50), epoch) for epoch in range(50)} == {1e-4}


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    model(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_continuing_from_a_checkpoint_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    config = _config(optimizer=name, lr=0.1)
    torch.manual_seed(0)
    model, path = nn.Linear(3, 2), tmp_path / "last.ckpt"
    optimizer = make_optimizer(model, config)
    _step(model, optimizer, 0)
    save_tensors(path, training_state(model, optimizer), Progress(1, 1, 0.5))
    _step(model, optimizer, 1)

    other = nn.Linear(3, 2)
    restored = make_optimizer(other, config)
    stored = load_tensors(path)
    assert stored is not None
    assert stored[1] == Progress(1, 1, 0.5)
    restore_training_state(stored[0], other, restored)
    set_learning_rates(restored, (0.1, 0.1))
    _step(other, restored, 1)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other.bias, model.bias)


def test_frozen_parameters_are_not_optimized() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    assert make_optimizer(model, _config()).param_groups[0]["params"] == [model.bias]


@pytest.mark.parametrize("damage", ["absent", "empty", "truncated", "one bit", "no metadata"])
def test_damaged_checkpoints_are_noticed(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_tensors(path, {"model.weight": torch.arange(100.0)}, Progress(1, 1, 0.5))
    content = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(content[:-10])
    elif damage == "one bit":
        content[-5] ^= 1
        path.write_bytes(content)
    else:
        from safetensors.torch import save_file

        save_file({"model.weight": torch.zeros(1)}, path)
    assert load_tensors(path) is None


class _TwoParts(nn.Module):
    """An encoder with a norm, whose parameters have one dimension, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.head = nn.Linear(4, 2)


FOUNDATION = {"lr": 1e-5, "schedule": "constant", "head_lr": 1e-3, "head_schedule": "step", "step_steps": 200}


def test_each_part_follows_its_own_schedule_as_torchs_schedulers_have_it() -> None:
    """A constant rate for the encoder, x.9 per 200 steps for the head (arXiv 2501.14685)."""
    config = _config(**FOUNDATION, step_gamma=0.9, steps=1000, batch_size=64)
    model = _TwoParts()
    optimizer = make_optimizer(model, config, model.head)
    encoder = torch.optim.AdamW(model.encoder.parameters(), lr=1e-5)
    head = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(head, 200, 0.9)
    length = training_length(config, 546)
    for step in range(1000):
        set_learning_rates(optimizer, learning_rates(config, length, step))
        ours = [group["lr"] for group in optimizer.param_groups]
        assert ours == pytest.approx([group["lr"] for group in (*encoder.param_groups, *head.param_groups)])
        head.step()
        scheduler.step()


def test_warm_up_in_steps_is_torchs_and_a_cosine_follows_by_steps() -> None:
    config = _config(lr=0.1, schedule="cosine", warmup_steps=10, min_lr=0.001, epochs=5, batch_size=8)
    length = training_length(config, 80)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 11, total_iters=10)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.001)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[10])
    for step in range(50):
        assert learning_rates(config, length, step)[0] == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_a_cosine_of_a_length_in_steps_ends_with_them() -> None:
    config = _config(lr=0.1, schedule="cosine", steps=100, batch_size=8)
    length = training_length(config, 80)
    assert learning_rates(config, length, 50)[0] == pytest.approx(0.05)
    assert learning_rates(config, length, 99)[0] < 1e-4


def test_one_group_unless_parts_differ() -> None:
    model = _TwoParts()
    (group,) = make_optimizer(model, _config(), model.head).param_groups
    # The order of the model: what earlier checkpoints count their parameters by.
    assert [id(each) for each in group["params"]] == [id(each) for each in model.parameters()]


def test_decay_may_spare_what_has_one_dimension() -> None:
    model = _TwoParts()
    groups = make_optimizer(model, _config(weight_decay=0.1, decay_1d=False, head_lr=1.0), model.head).param_groups
    found = {id(each): (group["weight_decay"], group["lr"]) for group in groups for each in group["params"]}
    for name, parameter in model.named_parameters():
        decay = 0.1 if parameter.ndim > 1 else 0.0
        rate = 1.0 if name.startswith("head") else 1e-4
        assert found[id(parameter)] == (decay, rate), name


def test_a_part_without_a_learning_rate_is_frozen() -> None:
    model = _TwoParts()
    (group,) = make_optimizer(model, _config(encoder_lr=0), model.head).param_groups
    assert group["params"] == list(model.head.parameters())
    assert not any(each.requires_grad for each in model.encoder.parameters())
    model = _TwoParts()
    make_optimizer(model, _config(head_lr=0), model.head)
    assert [each.requires_grad for each in model.head.parameters()] == [False, False]


def test_nothing_to_train_is_refused() -> None:
    model = _TwoParts()
    model.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing trains"):
        make_optimizer(model, _config(head_lr=0), model.head)


@pytest.mark.gpu
def test_rates_of_groups_lie_on_the_card_and_keep_their_place() -> None:
    model = _TwoParts().cuda()
    optimizer = make_optimizer(model, _config(**FOUNDATION), model.head)
    places = [group["lr"].data_ptr() for group in optimizer.param_groups]
    set_learning_rates(optimizer, (0.5, 0.25))
    assert [group["lr"].item() for group in optimizer.param_groups] == [0.5, 0.25]
    assert [group["lr"].data_ptr() for group in optimizer.param_groups] == places
