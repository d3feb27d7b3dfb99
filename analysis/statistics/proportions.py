"""Scores as proportions: where no resample can differ, how far off may they still be?"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raypatch.analysis.statistics.stacks import Stack
from raypatch.tasks import ClassTask

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


def wilson(share: float, count: float, t: float = Z) -> tuple[float, float]:
    """Return the bounds of a proportion among `count` (Wilson, JASA 1927), within 0 to 1.

    A count that is no whole number is an effective one: share (1 - share) / variance.
    """
    shrink = 1 + t * t / count
    centre = (share + t * t / (2 * count)) / shrink
    half = t / shrink * math.sqrt(share * (1 - share) / count + (t / (2 * count)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def parts_of_score(
    stack: Stack, task: ClassTask, metric: str, groups: NDArray[np.generic] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the K proportions whose mean is the score: each member's, (M, K), and of how many images, (K,).

    Accuracy is one proportion (multilabel: one of each label), balanced accuracy one of each class.
    The AUC of a class counts as much as 4mn / (m + n + 2) images, m with and n without it: near 1
    that gives the variance of Hanley and McNeil (Radiology 1982). groups: images of one patient
    count once. None for other metrics.
    """
    if metric == "accuracy":
        return _accuracies(stack, task, groups)
    if metric == "balanced_accuracy":
        return _recalls(stack, task, groups)
    if metric == "auc":
        return _areas(stack, task, groups)
    return None


def _accuracies(
    stack: Stack, task: ClassTask, groups: NDArray[np.generic] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    right = np.stack([task.predicted(member) == stack.label for member in stack.probability])
    shares = right.reshape(*right.shape[:2], -1).mean(axis=1)
    everyone = _count(np.ones(len(stack.label), bool), groups)
    return shares, np.full(shares.shape[1], everyone)


def _recalls(
    stack: Stack, task: ClassTask, groups: NDArray[np.generic] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    predicted = np.stack([task.predicted(member) for member in stack.probability])
    # A multilabel set has a column of labels per class; any other has one.
    labels = stack.label if stack.label.ndim == 2 else stack.label[:, None]
    predicted = predicted.reshape(len(predicted), *labels.shape)
    shares, counts = [], []
    for column, truth in enumerate(labels.T):
        for own in np.unique(truth):
            present = truth == own
            shares.append((predicted[:, present, column] == own).mean(axis=1))
            counts.append(_count(present, groups))
    return np.stack(shares, axis=1), np.array(counts)


def _areas(
    stack: Stack, task: ClassTask, groups: NDArray[np.generic] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shares = []
    for member in stack.probability:
        scores, truth = task.one_versus_rest(member, stack.label)
        shares.append([_separation(scores[:, k], truth[:, k]) for k in range(truth.shape[1])])
    counts = []
    for column in truth.T:
        have, lack = _count(column, groups), _count(~column, groups)
        counts.append(4 * have * lack / (have + lack + 2))
    return np.array(shares), np.array(counts)


def _separation(score: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Return 1 where every positive scores above every negative, 0 where all score below, 0.5 anywhere between."""
    if truth.all() or not truth.any():
        return math.nan
    if score[truth].min() > score[~truth].max():
        return 1.0
    return 0.0 if score[truth].max() < score[~truth].min() else 0.5


def _count(present: NDArray[np.bool_], groups: NDArray[np.generic] | None) -> float:
    return float(np.count_nonzero(present) if groups is None else len(np.unique(groups[present])))


def count_behind(counts: NDArray[np.float64]) -> float:
    """Return the images that one proportion as uncertain as the mean of K proportions would have."""
    return float(len(counts) ** 2 / (1 / counts).sum())


def unseen_variance(
    shares: Sequence[NDArray[np.float64]],
    counts: Sequence[NDArray[np.float64]],
    weights: NDArray[np.float64],
    *,
    equal: bool,
    paired: bool = True,
) -> float:
    """Return the variance that resamples of the images cannot show, of the sum of weight × score over L levels.

    shares: (M, K) of each level, see `parts_of_score`. weights: above 0, or a difference: the first
    half against the second half, setting by setting. A proportion that is 0 or 1 in every member
    stays so in every resample; it gets the variance of Agresti and Coull (Am. Stat. 1998). Where
    both sides of a difference have the same such proportion, or are `equal` in every resample, they
    seldom err on different images: that of Agresti and Min (Stat. Med. 2005) for pairs, if these are
    `paired` by image. Settings may have the same images, so their errors add.
    """
    sides = [_side(own) for own in shares]
    half = len(sides) // 2
    errors = {"first": 0.0, "second": 0.0, "pairs": 0.0}
    for place, (weight, side, count) in enumerate(zip(weights, sides, counts, strict=True)):
        agreed = np.zeros(len(side), bool)
        if weights.min() < 0 and paired:
            agreed = _agreed(side, sides[(place + half) % len(sides)], equal=equal)
        # What both sides agree on counts once, as a pair, and not on either side.
        at_edge = ~np.isnan(side) & ~agreed
        alone = float(_variance_at_edge(count[at_edge]).sum())
        errors["first" if weight > 0 else "second"] += abs(weight) * math.sqrt(alone) / len(count)
        in_pair = float((1 / (count[agreed] + 2) ** 2).sum())
        errors["pairs"] += max(weight, 0) * math.sqrt(in_pair) / len(count)
    return float(sum(error**2 for error in errors.values()))


def _agreed(first: NDArray[np.float64], second: NDArray[np.float64], *, equal: bool) -> NDArray[np.bool_]:
    """Return which proportions are the same 0 or 1 on both sides; of `equal` sides, those between too: (K,)."""
    same: NDArray[np.bool_] = first == second
    return same | (np.isnan(first) & np.isnan(second)) if equal else same


def _side(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 0 or 1 for each proportion that is so in every member, else NaN: (K,)."""
    edge = ((shares == 0) | (shares == 1)).all(axis=0) & (shares == shares[0]).all(axis=0)
    return np.where(edge, shares[0], np.nan)


def _variance_at_edge(count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of a proportion of 0 (or 1) after z² made-up images, half of them right."""
    share = (Z * Z / 2) / (count + Z * Z)
    variance: NDArray[np.float64] = share * (1 - share) / (count + Z * Z)
    return variance
