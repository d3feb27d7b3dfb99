"""Whether the fields of a trial fit each other, its dataset and its task."""

import difflib
from collections.abc import Mapping
from typing import Any

from raypatch.config import TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.methods import check_method
from raypatch.tasks import find_task, score_names
from raypatch.tasks.imbalance import check_loss_fields
from raypatch.tasks.seen import check_seen
from raypatch.trial_fields.length import training_length


def require_one_length(values: Mapping[str, Any]) -> None:
    """Raise ValueError where a study gives a trial's length in steps and in epochs."""
    # A config cannot tell epochs that were given from its default.
    if values.get("steps") is not None and "epochs" in values:
        raise ValueError(f"steps={values['steps']} and epochs={values['epochs']} both give the length; keep one")


def check_fit(config: TrialConfig, info: DatasetInfo) -> None:
    """Raise ValueError where a config asks for what its dataset or its task cannot give."""
    check_method(config.method)
    check_seen(config, info)
    task = find_task(config.task or info.task)
    if task.reads == "masks":
        _check_masks(config, info)
    if info.task not in task.kinds:
        raise ValueError(
            f"task={config.task} reads labels of the kind {' or '.join(task.kinds)},"
            f" and {config.dataset_label} has {info.task} ones: leave task out, or choose another"
        )
    scores = score_names(task)
    if config.selection_metric not in scores:
        # A looser match than elsewhere: the names share their beginning, val_.
        near = difflib.get_close_matches(config.selection_metric, scores, n=3, cutoff=0.4) or scores
        known = ", ".join(f"val_{name}" for name in near)
        raise ValueError(
            f"selection={config.selection} is no score that training computes for {config.dataset_label}: use {known}"
        )
    if config.fold is not None and config.fold >= info.folds:
        way_out = f"it has 0 to {info.folds - 1}" if info.folds else "it has none: pack own images with --folds"
        raise ValueError(f"fold={config.fold} is no fold of {config.dataset_label}; {way_out}")
    if config.augmentation == "elastic" and info.dimensions == 3:
        raise ValueError(f"augmentation=elastic is for images; {config.dataset_label} has volumes: use paper, or none")
    if info.dimensions == 2 and config.inflation != "repeat":
        raise ValueError(
            f"inflation={config.inflation} is for volumes; {info.name} has 2D images: leave it out",
        )
    if config.resize in ("pad", "pad_mean") and config.image_size < info.size:
        raise ValueError(
            f"resize={config.resize} needs image_size of at least {info.size}, the size of {info.name}, not"
            f" {config.image_size}; use bilinear, or another resolution"
        )
    check_loss_fields(config, task)
    # It raises where the warm-up does not end, or a batch is larger than the data.
    training_length(config, info.training_images(config.train_fraction))
    if config.method == "linear_probe" and config.encoder_lr is not None:
        raise ValueError(
            f"encoder_lr={config.encoder_lr:g} is for fine-tuning; a linear probe trains the head alone: leave it out"
        )


def _check_masks(config: TrialConfig, info: DatasetInfo) -> None:
    """Raise ValueError where a config asks for what a segmentation does not have."""
    if config.method != "finetune":
        raise ValueError(
            f"method={config.method} is for classes of images; a segmentation trains by finetune, with encoder_lr: 0"
            " where the encoder is to stay as it is"
        )
    if config.head != "linear":
        raise ValueError(f"head={config.head} makes classes of images; a segmentation has its own head: leave it out")
    if config.resize in ("pad", "pad_mean"):
        raise ValueError(
            f"resize={config.resize} puts a border around images, where masks have no class; use bilinear, or pack the"
            " images padded, which packing does by itself"
        )
