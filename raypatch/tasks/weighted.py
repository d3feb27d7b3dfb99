"""Metrics on many resamples of the images at once,
from how much each image counts in each resample.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks.protocols import (
    ClassTask,
    Label,
    Metric,
    Probability,
    Task,
    UndefinedMetricWarning,
    Weights,
)


def resample_metric(
    metric: Metric, probability: Probability, label: Label, task: Task, weights: Weights
) -> NDArray[np.float64]:
    """Return a metric in each resample, (B,): by its own fast form, else resample by resample."""
    if metric.weighted is not None:
        return metric.weighted(probability, label, task, weights)
    scores = np.empty(weights.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        # Weights are whole numbers, see `draw_images`: how often a resample has each image.
        for resample, counts in enumerate(weights.T.astype(np.int64)):
            drawn = np.repeat(np.arange(len(label)), counts)
            scores[resample] = metric.function(probability[drawn], label[drawn], task)
    return scores


def accuracy(
    probability: Probability,
    label: Label,
    task: ClassTask,
    weights: Weights,
) -> NDArray[np.float64]:
    """Return the share of right predictions in each resample, (B,)."""
    right = (task.predicted(probability) == label).astype(np.float32)
    # (N,): of an image's labels, where it has several.
    share = right.reshape(len(label), -1).mean(axis=1)
    scores: NDArray[np.float64] = share @ weights / len(label)
    return scores


def balanced_accuracy(
    probability: Probability,
    label: Label,
    task: ClassTask,
    weights: Weights,
) -> NDArray[np.float64]:
    """Return the mean recall over the classes that occur, then over the labels,
    in each resample: (B,).
    """
    # (N, K): one question for exclusive classes, else one per label.
    truths = label.reshape(len(label), -1)
    predictions = task.predicted(probability).reshape(truths.shape)
    means = []
    for truth, predicted in zip(truths.T, predictions.T, strict=True):
        right = predicted == truth
        present = (truth[None, :] == np.unique(truth)[:, None]).astype(np.float32)  # (classes, N)
        # Where several labels are drawn together one may have no image: its recall is left out.
        with np.errstate(invalid="ignore"):
            means.append(np.nanmean((present * right) @ weights / (present @ weights), axis=0))
    scores: NDArray[np.float64] = np.mean(means, axis=0)
    return scores


def macro_recall(
    probability: Probability,
    label: Label,
    task: ClassTask,
    weights: Weights,
) -> NDArray[np.float64]:
    """Return the mean recall over the classes that occur or are predicted, in each resample: (B,)."""
    present = np.unique(label)
    counted = np.union1d(present, task.predicted(probability))
    # The others that are counted have a recall of 0.
    return balanced_accuracy(probability, label, task, weights) * len(present) / len(counted)


def quadratic_kappa(
    probability: Probability,
    label: Label,
    task: ClassTask,
    weights: Weights,
) -> NDArray[np.float64]:
    """Return Cohen's kappa with quadratic weights in each resample, (B,)."""
    truth = label.astype(np.float64)
    predicted = task.predicted(probability).astype(np.float64)
    share = weights.astype(np.float64) / weights.sum(axis=0)
    observed = (truth - predicted) ** 2 @ share
    # Of two independent draws the mean squared distance is both variances and the squared gap of the means.
    mean_truth, mean_predicted = truth @ share, predicted @ share
    variances = (truth**2 @ share - mean_truth**2) + (predicted**2 @ share - mean_predicted**2)
    expected = variances + (mean_truth - mean_predicted) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa: NDArray[np.float64] = np.where(expected > 1e-12, 1 - observed / expected, np.nan)
    return kappa


def macro_auc(
    probability: Probability,
    label: Label,
    task: ClassTask,
    weights: Weights,
) -> NDArray[np.float64]:
    """Return the mean of the one-versus-rest AUC in each resample, (B,)."""
    scores, truth = task.one_versus_rest(probability, label)
    columns = []
    for question in range(scores.shape[1]):
        columns.append(weighted_auc(scores[:, question], truth[:, question], weights))
    means: NDArray[np.float64] = np.mean(columns, axis=0)
    return means


def weighted_auc(
    score: NDArray[np.floating],
    truth: NDArray[np.bool_],
    weights: Weights,
) -> NDArray[np.float64]:
    """Return the share of positive-negative pairs in the right order, (B,), a tie counting half;
    NaN without pairs.
    """
    if truth.all() or not truth.any():
        return np.full(weights.shape[1], np.nan)
    values, group = np.unique(score[truth], return_inverse=True)
    positives = _sum_rows(np.flatnonzero(truth), group, len(values), weights)
    negative = np.flatnonzero(~truth)
    rank = np.searchsorted(values, score[negative])
    tied = values[np.minimum(rank, len(values) - 1)] == score[negative]
    # Row 2g: negatives between positive values g - 1 and g; row 2g + 1: those that equal value g.
    reached = _sum_rows(negative, 2 * rank + tied, 2 * len(values) + 1, weights)
    # Row by row: numpy's cumsum along the first axis takes eight times as long.
    for row in range(1, len(reached)):
        reached[row] += reached[row - 1]
    # Of each positive: the negatives below it, and those below or tied. The mean counts ties half.
    pairs = (positives * (reached[:-1:2] + reached[1::2])).sum(axis=0, dtype=np.float64) / 2
    with np.errstate(invalid="ignore"):
        share: NDArray[np.float64] = pairs / (positives.sum(axis=0, dtype=np.float64) * reached[-1])
    return share


def _sum_rows(
    rows: NDArray[np.int64],
    target: NDArray[np.int64],
    count: int,
    weights: Weights,
) -> NDArray[np.float32]:
    """Add the rows of `weights` into their targets, (count, B):
    a sparse product, one pass over the memory.
    """
    from scipy import sparse

    # A row per target with a 1 for each of its rows: the product adds them up.
    picks = sparse.csr_array((np.ones(len(rows), np.float32), (target, rows)), shape=(count, len(weights)))
    summed: NDArray[np.float32] = picks @ weights
    return summed
