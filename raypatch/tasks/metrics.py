"""The metrics that ship with raypatch, each defined once for training and analysis.

A score that the labels leave undefined is NaN with an UndefinedMetricWarning, never 0.
"""

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks import weighted
from raypatch.tasks.protocols import ClassTask, Label, Metric, Probability, UndefinedMetricWarning


def accuracy(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return the share of right predictions, 0 to 1:
    over the images, with several labels over these too.
    """
    matrices = task.confusions(probability, label)
    if not len(matrices):
        return math.nan
    # Each matrix is a question, and the questions count alike.
    right = np.trace(matrices, axis1=1, axis2=2)
    return float(np.mean(right / matrices.sum(axis=(1, 2))))


def recalls(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the recall of each class, one row per confusion matrix;
    NaN for a class without images.
    """
    images = matrices.sum(axis=2)
    right = np.diagonal(matrices, axis1=1, axis2=2)
    # Divided only where there are images: 0 / 0 would warn.
    out = np.full(right.shape, np.nan)
    np.divide(right, images, out=out, where=images > 0)
    return out


def balanced_accuracy(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return the mean recall over the classes that occur, 0 to 1, as scikit-learn defines it;
    then over the labels.

    torchmetrics' macro recall is another score: it counts a class
    that is predicted but never occurs as 0.
    """
    matrices = task.confusions(probability, label)
    if not len(matrices):
        return math.nan
    return float(np.mean(np.nanmean(recalls(matrices), axis=1)))


def macro_recall(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return the mean recall over the classes that occur or are predicted, 0 to 1, as torchmetrics defines it.

    A class that is predicted but never occurs counts as 0. Of classes that exclude each other.
    """
    matrices = task.confusions(probability, label)
    if not len(matrices):
        return math.nan
    (matrix,) = matrices
    counted = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return float(np.nansum(recalls(matrices)) / counted.sum())


def quadratic_kappa(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return Cohen's kappa with quadratic weights (Cohen, Psychol. Bull. 1968), -1 to 1; 0 is chance.

    Of ordered classes: a miss costs the squared distance of the grades. NaN with a warning where
    truth and predictions are one and the same class, which leaves nothing to agree by chance.
    """
    matrices = task.confusions(probability, label)
    if not len(matrices):
        return math.nan
    (matrix,) = matrices
    grades = np.arange(len(matrix))
    distance = (grades[:, None] - grades[None, :]) ** 2
    by_chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / matrix.sum()
    expected = float((distance * by_chance).sum())
    if expected == 0:
        warnings.warn("quadratic kappa is undefined: all are of one class", UndefinedMetricWarning, stacklevel=2)
        return math.nan
    return 1 - float((distance * matrix).sum()) / expected


def macro_auc(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return the unweighted mean of the one-versus-rest AUC of all classes, 0 to 1.

    With two classes it is the AUC of class 1.
    NaN with a warning where a class has no image or has all of them, or a probability is NaN.
    """
    import torch
    from torchmetrics.functional.classification import multilabel_auroc

    if not is_defined(probability, "AUC"):
        return math.nan
    scores, truth = task.one_versus_rest(probability, label)
    positive = truth.sum(axis=0)
    lacking = np.flatnonzero((positive == 0) | (positive == len(truth)))
    if len(lacking):
        # Of two classes only the second is asked for, so the first question is about class 1.
        first = probability.shape[1] - truth.shape[1]
        places = ", ".join(map(str, lacking + first))
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


def log_loss(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return the task's loss by the probabilities alone."""
    return task.log_loss(probability, label)


def is_defined(probability: Probability, metric: str) -> bool:
    """Whether there are images and no probability is NaN;
    warns that `metric` is undefined where not.
    """
    if len(probability) and not np.isnan(probability).any():
        return True
    reason = "a probability is NaN" if len(probability) else "there is no image"
    warnings.warn(f"{metric} is undefined: {reason}", UndefinedMetricWarning, stacklevel=3)
    return False


LOSS = Metric("loss", "Loss", "loss", log_loss, lower_is_better=True, bounds=None)
ACCURACY = Metric("accuracy", "ACC", "accuracy", accuracy, weighted.accuracy)
BALANCED_ACCURACY = Metric(
    "balanced_accuracy", "bACC", "balanced accuracy", balanced_accuracy, weighted.balanced_accuracy
)
AUC = Metric("auc", "AUC", "AUC", macro_auc, weighted.macro_auc)
MACRO_RECALL = Metric(
    "macro_recall",
    "mRec",
    "macro recall",
    macro_recall,
    weighted.macro_recall,
    # Where every class occurs it is the balanced accuracy.
    always_shown=False,
    each_epoch=False,
    tasks=("binary", "multiclass", "ordinal"),
)
QUADRATIC_KAPPA = Metric(
    "quadratic_kappa",
    "κ²",
    "quadratic kappa",
    quadratic_kappa,
    weighted.quadratic_kappa,
    bounds=(-1.0, 1.0),
    tasks=("ordinal",),
)
