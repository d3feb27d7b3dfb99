"""Schedules equal torch's own; a checkpoint brings optimizer and model back exactly, or says that it cannot."""

from pathlib import Path

import pytest
import torch
from torch import nn

from raypatch.config import TrialConfig
from raypatch.training.checkpoint import Progress, load_tensors, restore_training_state, save_tensors, training_state
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
