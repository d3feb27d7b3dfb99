"""Accuracy, balanced accuracy, AUC, log loss: one definition of each, used by training and by the analysis.

A figure that the labels leave undefined is NaN with an UndefinedMetricWarning, never 0.
"""

import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multilabel_auroc,
    multilabel_confusion_matrix,
)

from raypatch.data.catalog import Task
from raypatch.results import Scores

Probability = NDArray[np.floating]
"""(N, C): softmax over classes, or one sigmoid per label where the task is multilabel."""

Label = NDArray[np.integer]
"""(N,) class numbers, or (N, C) of 0 and 1 where the task is multilabel."""


class UndefinedMetricWarning(RuntimeWarning):
    """A metric is NaN because the labels or the probabilities do not define it."""


def score(probability: Probability, label: Label, task: Task, loss: float | None = None) -> Scores:
    """Score one split; `loss` is taken over where the caller has it and is the log loss otherwise.

    Accuracy is the share of right classes (multilabel: of right labels at threshold 0.5). An ordinal task is scored
    as classes. See `balanced_accuracy` and `macro_auc` for the other two.
    """
    matrices = confusion_matrices(probability, label, task)
    return {
        "loss": log_loss(probability, label, task) if loss is None else loss,
        "accuracy": accuracy(matrices),
        "balanced_accuracy": balanced_accuracy(matrices),
        "auc": macro_auc(probability, label, task),
    }


def predicted_classes(probability: Probability, task: Task) -> NDArray[np.int64]:
    """Return the most probable class, (N,), the lowest of equals; multilabel: (N, C), 1 above 0.5."""
    if task == "multilabel":
        return (probability > 0.5).astype(np.int64)
    most_probable: NDArray[np.int64] = np.argmax(probability, axis=1)
    return most_probable


def confusion_matrices(probability: Probability, label: Label, task: Task) -> NDArray[np.int64]:
    """Count images by true (row) and predicted (column) class: (1, C, C); multilabel (C, 2, 2), one per label.

    Empty, (0, C, C), where a probability is NaN or there is no image: then no prediction is defined.
    """
    classes = probability.shape[1]
    if not _is_defined(probability, "accuracy"):
        return np.zeros((0, classes, classes), np.int64)
    predicted = torch.from_numpy(predicted_classes(probability, task))
    truth = torch.from_numpy(np.asarray(label, np.int64))
    if task == "multilabel":
        found = multilabel_confusion_matrix(predicted, truth, num_labels=classes, validate_args=False)
    else:
        found = multiclass_confusion_matrix(predicted, truth, num_classes=classes, validate_args=False)[None]
    counts: NDArray[np.int64] = found.numpy()
    return counts


def accuracy(matrices: NDArray[np.int64]) -> float:
    """Return the share of right predictions, 0 to 1, from `confusion_matrices`; NaN where those are empty."""
    if not len(matrices):
        return math.nan
    right = np.trace(matrices, axis1=1, axis2=2)
    return float(np.mean(right / matrices.sum(axis=(1, 2))))


def recalls(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the recall of each class, one row per matrix; NaN for a class without images."""
    images = matrices.sum(axis=2)
    right = np.diagonal(matrices, axis1=1, axis2=2)
    out = np.full(right.shape, np.nan)
    np.divide(right, images, out=out, where=images > 0)
    return out


def balanced_accuracy(matrices: NDArray[np.int64]) -> float:
    """Return the mean recall over the classes that occur, 0 to 1, as scikit-learn defines it; multilabel: label mean.

    torchmetrics' macro recall is another figure: it counts a class that is predicted but never occurs as 0.
    """
    if not len(matrices):
        return math.nan
    return float(np.mean(np.nanmean(recalls(matrices), axis=1)))


def macro_auc(probability: Probability, label: Label, task: Task) -> float:
    """Return the unweighted mean of the one-versus-rest AUC of all classes, 0 to 1; binary: the AUC of class 1.

    NaN with a warning where a class has no image or has all of them, or a probability is NaN.
    """
    if not _is_defined(probability, "AUC"):
        return math.nan
    scores, truth = one_versus_rest(probability, label, task)
    positive = truth.sum(axis=0)
    lacking = np.flatnonzero((positive == 0) | (positive == len(truth)))
    if len(lacking):
        places = ", ".join(map(str, lacking + (task == "binary")))
        warnings.warn(
            f"AUC is undefined: class {places} has no image or all of the {len(truth)} images",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return math.nan
    # torchmetrics takes values outside 0 to 1, which rounding can leave in a weighted mean, for logits.
    found = multilabel_auroc(
        torch.from_numpy(np.clip(scores, 0, 1)),
        torch.from_numpy(truth.astype(np.int64)),
        num_labels=truth.shape[1],
        average="none",
        validate_args=False,
    )
    return float(found.double().mean())


def one_versus_rest(
    probability: Probability, label: Label, task: Task
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Return the scores and the truth, both (N, K), of the K two-class questions that the AUC is the mean of.

    K is 1 for a binary task (class 1), the number of classes or labels otherwise.
    """
    if task == "multilabel":
        return probability, label.astype(bool)
    truth = label[:, None] == np.arange(probability.shape[1])
    return (probability[:, 1:], truth[:, 1:]) if task == "binary" else (probability, truth)


def log_loss(probability: Probability, label: Label, task: Task) -> float:
    """Return the mean cross-entropy in nats per image; multilabel: mean over the labels too. NaN without images."""
    if not _is_defined(probability, "log loss"):
        return math.nan
    if task == "multilabel":
        right = np.where(label.astype(bool), probability, 1 - probability)
    else:
        right = np.take_along_axis(probability, label[:, None], axis=1)
    floor = np.finfo(np.float32).tiny
    return float(-np.log(np.clip(right.astype(np.float64), floor, 1)).mean())


def _is_defined(probability: Probability, metric: str) -> bool:
    if len(probability) and not np.isnan(probability).any():
        return True
    reason = "a probability is NaN" if len(probability) else "there is no image"
    warnings.warn(f"{metric} is undefined: {reason}", UndefinedMetricWarning, stacklevel=3)
    return False
