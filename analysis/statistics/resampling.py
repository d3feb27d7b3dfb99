"""Bootstrap of test scores: how sure a score, or the difference of two, is.

Images are drawn within their stratum, the same draw for all that is compared (paired); the trained seeds are drawn
too, so that an interval covers the choice of the test images and the luck of the training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypatch.analysis.statistics.stacks import MisalignedError, Stack
from raypatch.tasks import Metric, Task, Weights, resample_metric

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % percentile interval; p: two-sided, of no difference, NaN for a single score."""

    estimate: float
    low: float
    high: float
    p: float = float("nan")


@dataclass(frozen=True)
class Resampled:
    """The mean of a score over the seeds of one cell, on the images as they are and in each of B resamples, (B,).

    drawn, other: the same images with seeds drawn one way and another, so that the two sides of a difference do not
    share their luck.
    """

    estimate: float
    drawn: NDArray[np.float64]
    other: NDArray[np.float64]

    @property
    def interval(self) -> Interval:
        """The score with its interval."""
        return Interval(self.estimate, *_percentiles(self.drawn))


def draw_images(strata: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """Draw N of N images with replacement, each stratum (N,) among its own: (N, B), how often each was drawn."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((len(strata), resamples), np.float32)
    columns = np.arange(resamples)
    for stratum in np.unique(strata):
        places = np.flatnonzero(strata == stratum)
        drawn = rng.integers(0, len(places), (len(places), resamples))
        counts = np.bincount((drawn * resamples + columns).ravel(), minlength=len(places) * resamples)
        weights[places] = counts.reshape(len(places), resamples)
    return weights


def resample_scores(stack: Stack, task: Task, metric: Metric, weights: Weights) -> NDArray[np.float64]:
    """Return the metric of each member in each resample: (M, B)."""
    scores = [resample_metric(metric, member, stack.label, task, weights) for member in stack.probability]
    return np.stack(scores)


def resample_mean(stack: Stack, task: Task, metric: Metric, weights: Weights, seed: int = 0) -> Resampled:
    """Resample the mean of the metric over the members, which are seeds of one cell.

    weights: as `draw_images` gives them for the strata of the stack's labels.
    """
    drawn = resample_scores(stack, task, metric, weights)  # (M, B)
    plain = resample_scores(stack, task, metric, np.ones((len(stack.label), 1), np.float32))
    members, resamples = drawn.shape
    means = []
    for place in (seed, seed + 1):
        picks = np.random.default_rng([place, members]).integers(0, members, (members, resamples))
        means.append(np.take_along_axis(drawn, picks, axis=0).mean(axis=0))
    return Resampled(float(plain.mean()), *means)


def difference(first: Resampled, second: Resampled) -> Interval:
    """Return how much `first` scores above `second` on the same draws of the same images, with interval and p.

    p is twice the smaller share of resamples on one side of 0, the observed sample counted in (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997); NaN where a resample leaves the score undefined.
    """
    drawn = first.drawn - second.other
    sides = [1 + np.count_nonzero(drawn <= 0), 1 + np.count_nonzero(drawn >= 0)]
    p = math.nan if np.isnan(drawn).any() else min(1.0, 2 * min(sides) / (1 + len(drawn)))
    return Interval(first.estimate - second.estimate, *_percentiles(drawn), p)


def average(parts: Sequence[Resampled]) -> Resampled:
    """Return the mean of several scores on the same draws of the same images, such as those of several settings."""
    return Resampled(
        estimate=float(np.mean([part.estimate for part in parts])),
        drawn=np.mean([part.drawn for part in parts], axis=0),
        other=np.mean([part.other for part in parts], axis=0),
    )


def bootstrap_difference(first: Stack, second: Stack, task: Task, metric: Metric, weights: Weights) -> Interval:
    """Return `difference` of the means over the members of two stacks.

    Raises MisalignedError when the images differ.
    """
    if not np.array_equal(first.index, second.index) or not np.array_equal(first.label, second.label):
        raise MisalignedError("a paired difference needs predictions of the same images")
    sides = [resample_mean(stack, task, metric, weights) for stack in (first, second)]
    return difference(sides[0], sides[1])


def _percentiles(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
