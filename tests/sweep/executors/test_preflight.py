"""What is refused before anything starts."""

from pathlib import Path

import numpy as np
import pytest

from raypatch.config import RunOptions, TrialConfig
from raypatch.sweep.executors.preflight import check_before_start

from tiny import make_images, tiny_trial


def check(trials: list[TrialConfig], options: RunOptions) -> None:
    check_before_start(trials, options, executor="local", say=lambda _: None)


def with_arrays(path: Path, **changes: np.ndarray) -> Path:
    """The file with some arrays in place of its own, or beside them."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    np.savez(path, **(arrays | changes))
    return path


@pytest.mark.parametrize("selection", ["val_loss", "val_accuracy", "val_balanced_accuracy", "val_auc"])
@pytest.mark.parametrize("only", [0, 1])
def test_a_val_of_one_class_is_refused_whatever_is_selected_by(tmp_path: Path, selection: str, only: int) -> None:
    """The best training would be one that always answers that class."""
    path = with_arrays(make_images(tmp_path / "own.npz"), val_labels=np.full((12, 1), only, np.uint8))
    config, options = tiny_trial(path, selection=selection)
    with pytest.raises(
        ValueError, match=f"own cannot tell .* its val has only class {only}. By any score, {selection}"
    ):
        check([config], options)


def test_a_val_in_which_all_images_have_the_same_labels_is_refused(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (24, 3)).astype(np.uint8)
    changes = {"train_labels": labels, "test_labels": labels[:12], "val_labels": np.tile(labels[0], (12, 1))}
    path = with_arrays(make_images(tmp_path / "own.npz"), **changes)
    config, options = tiny_trial(path, selection="val_loss")
    with pytest.raises(ValueError, match="in its val each image has, or none has, label 0, 1, 2"):
        check([config], options)
    changed = with_arrays(path, val_labels=labels[:12])
    check(*_listed(tiny_trial(changed, selection="val_loss")))


def test_a_val_that_lacks_one_of_several_classes_does_for_all_scores_but_the_auc(tmp_path: Path) -> None:
    path = with_arrays(make_images(tmp_path / "own.npz", classes=3), val_labels=np.arange(12)[:, None] % 2)
    check(*_listed(tiny_trial(path, selection="val_accuracy")))
    with pytest.raises(ValueError, match="val_auc is undefined on own: its val has only class 0, 1"):
        check(*_listed(tiny_trial(path, selection="val_auc")))


def test_each_fold_must_be_able_to_tell_which_training_is_best(tmp_path: Path) -> None:
    """Of four folds the one after the test is val: fold 3 has class 1 alone."""
    folds, labels = {}, {}
    start = 0
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        place = np.arange(start, start + count)
        folds[f"{split}_folds"] = place % 4
        labels[f"{split}_labels"] = np.where(place % 4 == 3, 1, place // 4 % 2)[:, None].astype(np.uint8)
        start += count
    path = with_arrays(make_images(tmp_path / "own.npz"), **folds, **labels)
    trials = [tiny_trial(path, fold=fold)[0] for fold in range(4)]
    options = tiny_trial(path)[1]
    check([trials[0], trials[1], trials[3]], options)
    with pytest.raises(ValueError, match="its val with fold=2 has only class 1"):
        check(trials, options)


def _listed(made: tuple[TrialConfig, RunOptions]) -> tuple[list[TrialConfig], RunOptions]:
    return [made[0]], made[1]
