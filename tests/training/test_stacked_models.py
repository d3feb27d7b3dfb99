"""Trials that train as one model of stacked weights: the numbers of each alone, and its files."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import raypatch.training.checkpoints.writer
import raypatch.training.loop
import raypatch.training.stacked_models.train
from raypatch.config import RunOptions, TrialConfig
from raypatch.models.build import build_model
from raypatch.results import TrialPaths, TrialResult, read_epochs
from raypatch.training.checkpoints.checkpoint import load_tensors
from raypatch.training.loop import TrialError
from raypatch.training.stacked_models import StackedModels, models_key
from raypatch.training.stacked_models.rows import RowOptimizers
from raypatch.trial import train_group, train_trial

from tiny import make_images, tiny_trial


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


STALLS = {"patience": 1, "lr": 1e-12, "selection": "val_balanced_accuracy"}
"""Of a trial that is over after its second epoch."""


class _Killed(BaseException):
    """Stands for a process that ends here."""


def _seeds(data: Path, count: int = 3, **fields: object) -> tuple[list[TrialConfig], RunOptions]:
    config, options = tiny_trial(data, precision="float32", **fields)
    return [config.model_copy(update={"seed": seed}) for seed in range(count)], options


def _paths(folder: Path, configs: list[TrialConfig]) -> dict[str, TrialPaths]:
    paths = {config.trial_id(): TrialPaths(folder / config.trial_id()) for config in configs}
    for each in paths.values():
        each.folder.mkdir(parents=True, exist_ok=True)
    return paths


def _together(
    folder: Path, configs: list[TrialConfig], options: RunOptions, on_epoch: object = lambda trial_id, row: None
) -> dict[str, TrialResult | TrialError]:
    paths = _paths(folder, configs)
    outcomes = train_group(configs, paths, options, on_epoch=on_epoch, should_stop=lambda: False)  # type: ignore[arg-type]
    return {config.trial_id(): outcome for config, outcome in outcomes}


def _alone(folder: Path, configs: list[TrialConfig], options: RunOptions) -> None:
    for trial_id, paths in _paths(folder, configs).items():
        (config,) = [config for config in configs if config.trial_id() == trial_id]
        train_trial(config, paths, options)


def _losses(folder: Path) -> dict[str, list[float]]:
    losses = {}
    for trial in sorted(folder.iterdir()):
        rows = read_epochs(trial / "epochs.jsonl")
        losses[trial.name] = [loss for row in rows for loss in (row.train_loss, row.val["loss"])]
    return losses


def _contents(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for trial in sorted(folder.iterdir()):
        for row in read_epochs(trial / "epochs.jsonl"):
            timed = {"seconds", "images_per_second", "peak_memory_bytes"}
            found[f"{trial.name} {row.epoch}"] = row.model_dump(exclude=timed)
        found[f"{trial.name} predictions"] = (trial / "predictions.npz").read_bytes()
        best = load_tensors(trial / "best.safetensors")
        assert best is not None
        for name, tensor in best[0].items():
            found[f"{trial.name} {name}"] = tensor.numpy().tobytes()
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"augmentation": "none", "train_fraction": 0.8, "clip_norm": 0.1, "class_weights": "balanced"},
        {"encoder_lr": 0.0, "schedule": "plateau", "plateau_patience": 0, "decay_1d": False},
    ],
    ids=["plain", "share", "parts"],
)
def test_fifty_steps_as_one_are_those_of_each_alone(tmp_path: Path, fields: dict[str, object]) -> None:
    configs, options = _seeds(make_images(tmp_path / "a.npz", count=204), epochs=2, **fields)
    _alone(tmp_path / "alone", configs, options)
    outcomes = _together(tmp_path / "together", configs, options)
    assert all(isinstance(outcome, TrialResult) for outcome in outcomes.values())
    alone, together = _losses(tmp_path / "alone"), _losses(tmp_path / "together")
    assert alone.keys() == together.keys()
    for trial_id, losses in alone.items():
        assert together[trial_id] == pytest.approx(losses, abs=1e-5)
    # Seeds are not one another.
    assert len({losses[0] for losses in together.values()}) == 3


def test_statistics_of_a_batch_are_each_models_own() -> None:
    # In float64, as such networks make much of a rounding: with another number of threads, too, they train otherwise.
    config = TrialConfig.model_validate({"dataset": "derma", "model": "test_resnet", "weights": "random"})
    configs = [config.model_copy(update={"image_size": 32, "seed": seed}) for seed in range(3)]
    together = [build_model(each, dimensions=2, outputs=2, files={}).model.double().train() for each in configs]
    alone = copy.deepcopy(together)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-4) for model in (*together, *alone)]
    stack = StackedModels(together, [True] * 3)
    steps = RowOptimizers(stack, optimizers[:3], None)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        images = torch.randn(8, 3, 3, 32, 32, generator=random, dtype=torch.float64)
        stack(images).square().mean().backward()
        steps.step()
        steps.zero_grad(set_to_none=True)
        for place, model in enumerate(alone):
            (model(images[:, place]).square().mean() / 3).backward()
            optimizers[3 + place].step()
            optimizers[3 + place].zero_grad()
    for theirs, ours in zip(together, alone, strict=True):
        for name, tensor in ours.state_dict().items():
            assert torch.allclose(theirs.state_dict()[name], tensor, rtol=0, atol=1e-10), name


@pytest.mark.parametrize("step", ["append_epoch", "save_tensors"])
@pytest.mark.parametrize("call", [2, 5])
def test_a_kill_before_any_write_of_a_stack_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    # The middle one, at whose files the kills come, is over first, by patience.
    configs, options = _seeds(make_images(tmp_path / "a.npz"), epochs=3)
    configs[1] = configs[1].model_copy(update=STALLS)
    _together(tmp_path / "straight", configs, options)
    module = {"append_epoch": raypatch.training.loop, "save_tensors": raypatch.training.checkpoints.writer}[step]
    # After every epoch.
    monkeypatch.setattr(raypatch.training.checkpoints.writer, "CHECKPOINT_SECONDS", 0.0)
    real, calls = getattr(module, step), 0

    def fatal(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise _Killed
        real(*arguments)

    monkeypatch.setattr(module, step, fatal)
    with pytest.raises(_Killed):
        _together(tmp_path / "broken", configs, options)
    monkeypatch.setattr(module, step, real)
    # As the sweep does, which leaves out what is over.
    left = [config for config in configs if not (tmp_path / "broken" / config.trial_id() / "result.json").exists()]
    _together(tmp_path / "broken", left, options)
    assert _contents(tmp_path / "broken") == _contents(tmp_path / "straight")


def test_rates_differ_and_what_diverges_leaves_alone(tmp_path: Path) -> None:
    configs, options = _seeds(make_images(tmp_path / "a.npz"), optimizer="sgd", clip_norm=None)
    configs = [config.model_copy(update={"lr": lr}) for config, lr in zip(configs, (1e-3, 1e30, 1e-2), strict=True)]
    outcomes = list(_together(tmp_path / "together", configs, options).values())
    assert isinstance(outcomes[0], TrialError)
    assert "training diverged in epoch 1" in str(outcomes[0])
    assert [outcome.status for outcome in outcomes[1:] if isinstance(outcome, TrialResult)] == ["ok", "ok"]
    _alone(tmp_path / "alone", [configs[0], configs[2]], options)
    together = _losses(tmp_path / "together")
    for trial_id, losses in _losses(tmp_path / "alone").items():
        assert together[trial_id] == pytest.approx(losses, abs=1e-5)


def test_one_that_is_left_trains_as_alone(tmp_path: Path) -> None:
    configs, options = _seeds(make_images(tmp_path / "a.npz"), count=2)
    stopped = configs[0].model_copy(update=STALLS)
    outcomes = _together(tmp_path / "together", [stopped, configs[1]], options)
    assert [outcome.epochs for outcome in outcomes.values() if isinstance(outcome, TrialResult)] == [2, 3]


@pytest.mark.parametrize(
    "fields",
    [{}, {"patch_size": 1}, {"model": "test_resnet", "patch_size": None, "image_size": 32, "lr": 1e-5}],
)
def test_rounded_products_and_several_passes_go_together(tmp_path: Path, fields: dict[str, object]) -> None:
    configs, options = _seeds(make_images(tmp_path / "a.npz"), count=2, epochs=1)
    configs = [config.model_copy(update={"precision": "bfloat16"} | fields) for config in configs]
    options = options.model_copy(update={"micro_batch": 3})
    _alone(tmp_path / "alone", configs, options)
    _together(tmp_path / "together", configs, options)
    together = _losses(tmp_path / "together")
    for trial_id, losses in _losses(tmp_path / "alone").items():
        assert together[trial_id] == pytest.approx(losses, abs=0.05)


def test_out_of_memory_halves_the_passes_of_a_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, options = _seeds(make_images(tmp_path / "a.npz"), count=2, epochs=1)
    _together(tmp_path / "straight", configs, options)
    real, passes = StackedModels.forward, []

    def small_memory(stack: StackedModels, inputs: torch.Tensor) -> torch.Tensor:
        passes.append(len(inputs))
        if len(inputs) > 4:
            raise torch.OutOfMemoryError
        return real(stack, inputs)

    monkeypatch.setattr(StackedModels, "forward", small_memory)
    _together(tmp_path / "small", configs, options)
    assert passes == [8, 4, 4, 4, 4, 4, 4]
    small = _losses(tmp_path / "small")
    for trial_id, losses in _losses(tmp_path / "straight").items():
        assert small[trial_id] == pytest.approx(losses, abs=1e-5)


def test_what_does_not_fit_in_memory_trains_as_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, options = _seeds(make_images(tmp_path / "a.npz"), count=2, epochs=1)
    _alone(tmp_path / "alone", configs, options)
    monkeypatch.setattr(raypatch.training.stacked_models.train, "stack_fits", lambda *_: False)
    _together(tmp_path / "together", configs, options)
    assert _contents(tmp_path / "together") == _contents(tmp_path / "alone")


def test_a_model_that_draws_numbers_is_not_stacked() -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.Dropout(0.5)) for _ in range(2)]
    stack = StackedModels(models, [False, False])
    with pytest.raises(RuntimeError):
        stack.rehearse(torch.zeros(2, 2, 3, 1, 1), "float32")


def test_rows_are_the_models_until_they_are_released() -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(3, 2)) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    stack = StackedModels(models, [True, False])
    steps = RowOptimizers(stack, [optimizers[0], None], None)
    before = models[1][1].weight.clone()
    stack(torch.ones(2, 2, 3, 1, 1)).sum().backward()
    steps.step()
    rows = stack.shape.get_parameter("1.weight")
    assert torch.equal(rows[0], models[0][1].weight)
    # Of the other nothing has changed: it goes along without a step.
    assert torch.equal(models[1][1].weight, before)
    stack.release()
    models[0][1].weight.data.zero_()
    assert rows[0].abs().sum() > 0


def test_what_must_be_alike_in_a_stack() -> None:
    def key(**fields: object) -> object:
        return models_key(TrialConfig.model_validate({"dataset": "derma", "patch_size": 4} | fields))

    assert key() == key(seed=1) == key(lr=1e-3, patience=3) == key(head_lr=1e-3)
    others = [{"patch_size": 7}, {"batch_size": 16}, {"encoder_lr": 0.0}, {"optimizer": "sgd"}, {"epochs": 7}]
    assert len({key(), *(key(**fields) for fields in others)}) == 1 + len(others)
    assert key(task="own_members:SmoothedTask") is None
