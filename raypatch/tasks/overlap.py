"""How far masks agree: Dice and IoU, per image and pooled, from counts of pixels.

Counts of an image and a class are its pixels in the truth, in the prediction, and in both. Dice is
2 both / (truth + prediction), IoU is both / (truth + prediction - both).

A class that neither truth nor prediction has is left out of its image's mean. An image with no class
at all in either scores 1: nothing is there, and nothing was found. So a mask that is empty in truth
scores 1 where the prediction is empty too, else 0.
"""

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks.protocols import Label, Metric, Probability, Task, UndefinedMetricWarning, Weights

Share = NDArray[np.float64]


def dice_shares(counts: NDArray[np.floating]) -> Share:
    """Return the Dice of counts (..., 3) of both, prediction and truth; NaN where there is neither."""
    both, predicted, truth = np.moveaxis(counts.astype(np.float64), -1, 0)
    return _divide(2 * both, predicted + truth)


def iou_shares(counts: NDArray[np.floating]) -> Share:
    """Return the IoU of counts (..., 3), as `dice_shares`."""
    both, predicted, truth = np.moveaxis(counts.astype(np.float64), -1, 0)
    return _divide(both, predicted + truth - both)


def _divide(part: Share, whole: Share) -> Share:
    # Divided only where there is something: 0 / 0 would warn.
    out = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def all_counts(probability: Probability, label: Label) -> NDArray[np.float64]:
    """Return stored counts, (N, C, 2) of both and prediction and (N, C) of the truth, as one: (N, C, 3)."""
    return np.concatenate([probability, label[..., None]], axis=-1, dtype=np.float64)


def image_means(shares: Share) -> Share:
    """Return the mean of an image's classes, (N,) of (N, C); 1 where it has none."""
    known = ~np.isnan(shares)
    total = np.where(known, shares, 0.0).sum(axis=1)
    means: Share = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), 1.0)
    return means


def dice_of_images(probability: Probability, label: Label) -> Share:
    """Return the Dice of each image, (N,)."""
    return image_means(dice_shares(all_counts(probability, label)))


def iou_of_images(probability: Probability, label: Label) -> Share:
    """Return the IoU of each image, (N,)."""
    return image_means(iou_shares(all_counts(probability, label)))


def dice(probability: Probability, label: Label, task: Task) -> float:
    """Return the mean over images of each one's Dice, 0 to 1."""
    return _mean(dice_of_images(probability, label), "Dice")


def iou(probability: Probability, label: Label, task: Task) -> float:
    """Return the mean over images of each one's IoU, 0 to 1."""
    return _mean(iou_of_images(probability, label), "IoU")


def pooled_dice(probability: Probability, label: Label, task: Task) -> float:
    """Return the Dice of the pixels of all images together, mean over the classes that occur, 0 to 1."""
    return _mean_of_classes(dice_shares(all_counts(probability, label).sum(axis=0)), "pooled Dice")


def pooled_iou(probability: Probability, label: Label, task: Task) -> float:
    """Return the IoU of the pixels of all images together, mean over the classes that occur, 0 to 1."""
    return _mean_of_classes(iou_shares(all_counts(probability, label).sum(axis=0)), "pooled IoU")


def _mean(scores: Share, metric: str) -> float:
    if len(scores):
        return float(scores.mean())
    warnings.warn(f"{metric} is undefined: there is no image", UndefinedMetricWarning, stacklevel=3)
    return math.nan


def _mean_of_classes(shares: Share, metric: str) -> float:
    if not np.isnan(shares).all():
        return float(np.nanmean(shares))
    warnings.warn(
        f"{metric} is undefined: no image has a pixel of any class, in truth or prediction",
        UndefinedMetricWarning,
        stacklevel=3,
    )
    return math.nan


def _weighted_dice(probability: Probability, label: Label, task: Task, weights: Weights) -> Share:
    return _weighted_mean(dice_of_images(probability, label), weights)


def _weighted_iou(probability: Probability, label: Label, task: Task, weights: Weights) -> Share:
    return _weighted_mean(iou_of_images(probability, label), weights)


def _weighted_mean(scores: Share, weights: Weights) -> Share:
    means: Share = scores @ weights.astype(np.float64) / len(scores)
    return means


def _weighted_pooled_dice(probability: Probability, label: Label, task: Task, weights: Weights) -> Share:
    return _mean_by_resample(dice_shares(_weighted_counts(probability, label, weights)))


def _weighted_pooled_iou(probability: Probability, label: Label, task: Task, weights: Weights) -> Share:
    return _mean_by_resample(iou_shares(_weighted_counts(probability, label, weights)))


def _weighted_counts(probability: Probability, label: Label, weights: Weights) -> Share:
    """The counts of each resample, (B, C, 3)."""
    counts: Share = np.einsum("nck,nb->bck", all_counts(probability, label), weights.astype(np.float64))
    return counts


def _mean_by_resample(shares: Share) -> Share:
    known = ~np.isnan(shares)
    total = np.where(known, shares, 0.0).sum(axis=1)
    return _divide(total, known.sum(axis=1))


DICE = Metric("dice", "Dice", "Dice", dice, _weighted_dice, tasks=("segmentation",))
IOU = Metric("iou", "IoU", "IoU", iou, _weighted_iou, tasks=("segmentation",))
POOLED_DICE = Metric("pooled_dice", "pDice", "pooled Dice", pooled_dice, _weighted_pooled_dice, tasks=("segmentation",))
POOLED_IOU = Metric("pooled_iou", "pIoU", "pooled IoU", pooled_iou, _weighted_pooled_iou, tasks=("segmentation",))
