"""A trial small enough for a test: made images in a file of its own, a tiny transformer, a few steps."""

from pathlib import Path
from typing import Any

import numpy as np

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, SweepPaths, read_result
from raypatch.storage.own_files import own_file_id
from raypatch.study import Study


def make_images(path: Path, *, dimensions: int = 2, size: int = 8, classes: int = 2, count: int = 24) -> Path:
    """Write an .npz in MedMNIST's layout: the class is the brightness, plus noise."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, number in (("train", count), ("val", 12), ("test", 12)):
        labels = np.arange(number) % classes
        noise = random.integers(0, 100, (number, *(size,) * dimensions))
        arrays[f"{split}_images"] = (noise + 100 * labels.reshape(-1, *(1,) * dimensions)).clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


def tiny_study(
    data: Path | list[Path],
    *,
    fixed: dict[str, object] | None = None,
    search: dict[str, Any] | None = None,
    **axes: object,
) -> Study:
    """A study on the files' images that trains in moments: two epochs at patch sizes 8 and 4, unless told otherwise."""
    values = {"model": "test_vit", "weights": "random", "epochs": 2, "batch_size": 8, "lr": 1e-3}
    datasets = [str(path) for path in data] if isinstance(data, list) else [str(data)]
    grid = {"dataset": datasets, "patch_size": [8, 4], "seed": [0]} | axes
    elsewhere = {*grid, *(search["fields"] if search else ())}
    kept = {name: value for name, value in (values | (fixed or {})).items() if name not in elsewhere}
    content: dict[str, object] = {"name": "tiny", "fixed": kept, "grid": grid}
    if search is not None:
        content["search"] = search
    return Study.model_validate(content)


def epoch_row(epoch: int, loss: float = 0.5, **numbers: object) -> EpochRow:
    """An epoch as training writes it, all its scores 0.5 but the validation loss."""
    scores = {"loss": loss, "accuracy": 0.5, "balanced_accuracy": 0.5, "auc": 0.5}
    values = {"train_loss": 0.5, "lr": 0.5, "seconds": 1.0, "images_per_second": 9.0}
    return EpochRow.model_validate({"epoch": epoch, "val": scores} | values | numbers)


def read_figures(sweep: SweepPaths) -> dict[str, tuple[str, bytes]]:
    """All that must be the same bits however a sweep ran: by trial, the figures of its result and its predictions."""
    found = {}
    for trial in sweep.trial_folders():
        result = read_result(trial.result)
        assert result is not None, trial.folder
        figures = result.model_dump_json(include={"status", "epochs", "best_epoch", "val", "test", "model", "dataset"})
        found[trial.folder.name] = (figures, trial.predictions.read_bytes())
    return found


def tiny_trial(path: Path, **fields: object) -> tuple[TrialConfig, RunOptions]:
    """A config on the file's images and the options that know where the file lies."""
    identity = own_file_id(path)
    values: dict[str, object] = {
        "dataset": identity,
        "image_size": 8,
        "patch_size": 4,
        "model": "test_vit",
        "weights": "random",
        "epochs": 3,
        "batch_size": 8,
        "lr": 1e-3,
    }
    config = TrialConfig.model_validate(values | fields)
    return config, RunOptions(device="cpu", files={identity: path}, threads=1)


def make_masks(path: Path, *, size: int = 16, classes: int = 2, count: int = 12, **arrays: object) -> Path:
    """Write an .npz of images with masks: a bright square for each class but the background, at another place each.

    The first image of each split is empty. arrays: to add, or to put in place of those.
    """
    random = np.random.default_rng(0)
    content: dict[str, object] = {}
    for split, number in (("train", count), ("val", 6), ("test", 6)):
        masks = np.zeros((number, size, size), np.uint8)
        for image in range(1, number):
            for label in range(1, classes):
                row, column = random.integers(0, size // 2 + 1, 2)
                masks[image, row : row + size // 3, column : column + size // 3] = label
        noise = random.integers(0, 90, masks.shape)
        content[f"{split}_images"] = (noise + 120 // (classes - 1) * masks).clip(0, 255).astype(np.uint8)
        content[f"{split}_masks"] = masks
    np.savez(path, **(content | arrays))  # type: ignore[arg-type]
    return path


def tiny_mask_trial(path: Path, **fields: object) -> tuple[TrialConfig, RunOptions]:
    """As `tiny_trial`, of a segmentation."""
    values: dict[str, object] = {"task": "segmentation", "image_size": 16, "selection": "val_dice", "epochs": 2}
    return tiny_trial(path, **(values | fields))
