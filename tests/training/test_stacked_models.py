"""Trials that train as one model of stacked weights: the numbers of each alone, and its files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import raypatch.training.loop
import raypatch.training.stacked_models.train
from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, TrialPaths, TrialResult, read_epochs
from raypatch.training.loop import TrialError
from raypatch.training.stacked_models import StackedModels, models_key
from raypatch.trial import train_group, train_trial

from tiny import make_images, tiny_trial


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


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
        for name in ("predictions.npz", "best.safetensors"):
            found[f"{trial.name} {name}"] = (trial / name).read_bytes()
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"augmentation": "none", "optimizer": "sgd", "clip_norm": 0.1, "class_weights": "balanced"},
        {"encoder_lr": 0.0, "schedule": "plateau", "plateau_patience": 0, "decay_1d": False},
        {"model": "resnet10t", "patch_size": None, "lr": 1e-5},
        {"train_fraction": 0.7, "weights": "random", "warmup_epochs": 1},
    ],
    ids=["plain", "sgd", "parts", "batch statistics", "share"],
)
def test_fifty_steps_as_one_are_those_of_each_alone(tmp_path: Path, fields: dict[str, object]) -> None:
    # 3 steps an epoch, of the last one 2.
    configs, options = _seeds(make_images(tmp_path / "a.npz"), epochs=17, selection="val_loss", **fields)
    _alone(tmp_path / "alone", configs, options)
    outcomes = _together(tmp_path / "together", configs, options)
    assert all(isinstance(outcome, TrialResult) for outcome in outcomes.values())
    alone, together = _losses(tmp_path / "alone"), _losses(tmp_path / "together")
    assert alone.keys() == together.keys()
    for trial_id, losses in alone.items():
        assert together[trial_id] == pytest.approx(losses, abs=1e-5)
    # Seeds are not one another.
    assert len({losses[0] for losses in together.values()}) == 3
