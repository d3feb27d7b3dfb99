"""Bootstrap of test scores: how sure a score, or the difference of two, is.

Images are drawn within their class (stratified), the same draw for all that is compared (paired); the trained
seeds are drawn too, so that an interval covers the choice of the test images and the luck of the training.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypatch.analysis.statistics.stacks import MisalignedError, Stack
from raypatch.data.catalog import Task
from raypatch.tasks import find_metric, find_task, resample_metric

RESAMPLES = 1000
LEVEL = 0.95

Weights = NDArray[np.float32]
"""(N, B): how often each of N images is in each of B resamples."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % percentile interval; p: two-sided, of no difference, NaN for a single score."""

    estimate: float
    low: float
    high: float
    p: float = float("nan")


def draw_images(label: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """Draw N of N images with replacement, each class among its own; multilabel images, (N, C), among all."""
    rng = np.random.default_rng(seed)
    strata = label if label.ndim == 1 else np.zeros(len(label), np.int64)
    weights = np.zeros((len(label), resamples), np.float32)
    columns = np.arange(resamples)
    for stratum in np.unique(strata):
        places = np.flatnonzero(strata == stratum)
        drawn = rng.integers(0, len(places), (len(places), resamples))
        counts = np.bincount((drawn * resamples + columns).ravel(), minlength=len(places) * resamples)
        weights[places] = counts.reshape(len(places), resamples)
    return weights


def resample_scores(stack: Stack, task: Task, metric: str, weights: Weights) -> NDArray[np.float64]:
    """Return `metric` (accuracy, balanced_accuracy or auc) of each member in each resample: (M, B), 0 to 1."""
    kind, measure = find_task(task), find_metric(metric, task)
    return np.stack([resample_metric(measure, member, stack.label, kind, weights) for member in stack.probability])


def bootstrap_score(stack: Stack, task: Task, metric: str, weights: Weights, seed: int = 0) -> Interval:
    """Return the mean of `metric` over the members, which are seeds of one cell, with its interval.

    weights: as `draw_images` gives them for the stack's labels.
    """
    estimate, drawn = _mean_over_seeds(stack, task, metric, weights, seed)
    return Interval(estimate, *_percentiles(drawn))


def bootstrap_difference(
    first: Stack, second: Stack, task: Task, metric: str, weights: Weights, seed: int = 0
) -> Interval:
    """Return how much the members of `first` score above those of `second` on the same images, with interval and p.

    p is twice the smaller share of resamples on one side of 0, the observed sample counted in (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997). Raises MisalignedError when the images differ.
    """
    if not np.array_equal(first.index, second.index) or not np.array_equal(first.label, second.label):
        raise MisalignedError("a paired difference needs predictions of the same images")
    (high, drawn_high), (low, drawn_low) = (
        _mean_over_seeds(stack, task, metric, weights, seed + place) for place, stack in enumerate((first, second))
    )
    difference = drawn_high - drawn_low
    sides = [1 + np.count_nonzero(difference <= 0), 1 + np.count_nonzero(difference >= 0)]
    p = math.nan if np.isnan(difference).any() else min(1.0, 2 * min(sides) / (1 + len(difference)))
    return Interval(high - low, *_percentiles(difference), p)


def _mean_over_seeds(
    stack: Stack, task: Task, metric: str, weights: Weights, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the mean over the members on the images as they are, and in each resample over members drawn anew."""
    drawn = resample_scores(stack, task, metric, weights)  # (M, B)
    plain = resample_scores(stack, task, metric, np.ones((len(stack.label), 1), np.float32))
    members, resamples = drawn.shape
    picks = np.random.default_rng([seed, members]).integers(0, members, (members, resamples))
    return float(plain.mean()), np.take_along_axis(drawn, picks, axis=0).mean(axis=0)


def _percentiles(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
