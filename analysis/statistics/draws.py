"""Test images drawn anew, the same draw for all that is compared, and the scores of a level in each draw."""

import numpy as np
from numpy.typing import NDArray

from raypatch.analysis.statistics.inference import LevelScores
from raypatch.analysis.statistics.proportions import parts_of_score
from raypatch.analysis.statistics.stacks import Stack
from raypatch.tasks import ClassTask, Metric, Task, Weights, resample_metric

RESAMPLES = 1000


def draw_images(
    strata: NDArray[np.int64],
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: NDArray[np.generic] | None = None,
    *,
    whole: bool = False,
) -> Weights:
    """Draw weights of the images, (N, B), whatever their class; each column sums to N.

    A Bayesian bootstrap (Rubin, Ann. Stat. 1981): counts of draws may leave a rare class out, whose
    recall then has no value; these weights are above 0 for every image. strata: the class (N,) of
    each image. groups: (N,), who is on an image; images of one patient share one weight. whole:
    counts of draws after all, for a metric that is computed image by image. Give different `seed`s
    to datasets whose scores are averaged. Raises ValueError for groups of another length.
    """
    images = len(strata)
    names = np.arange(images) if groups is None else np.asarray(groups)
    if len(names) != images:
        raise ValueError(f"{len(names)} groups for {images} images: give one group for each image")
    _, unit = np.unique(names, return_inverse=True)
    units = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    # All images of a patient are one unit and share a weight.
    if whole:
        counts = rng.multinomial(units, np.full(units, 1 / units), size=resamples).T
        return counts[unit].astype(np.float32)
    shape = _shapes(strata, unit)[:, None]
    weights = (rng.standard_gamma(shape, (units, resamples)) / shape)[unit]
    weights *= images / weights.sum(axis=0)
    return weights.astype(np.float32)


def _shapes(strata: NDArray[np.int64], unit: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Gamma shape of each unit, (U,): 1 - 2/n where n units show its (rarest) class.

    With shape 1, Rubin's, the variance of a mean over n is short by (n + 1) / (n - 1); this shape
    makes up for it.
    """
    shape = np.ones(unit.max() + 1)
    for own in np.unique(strata):
        members = np.unique(unit[strata == own])
        shape[members] = np.minimum(shape[members], max(1 - 2 / len(members), 1 / 3))
    return shape


class Draws:
    """The resamples of one set of test images, drawn once for all levels and metrics."""

    def __init__(
        self,
        strata: NDArray[np.int64],
        resamples: int = RESAMPLES,
        seed: int = 0,
        groups: NDArray[np.generic] | None = None,
    ) -> None:
        self.groups = groups
        self._how = (strata, resamples, seed, groups)
        self._weights: dict[bool, Weights] = {}

    def weights(self, metric: Metric) -> Weights:
        """Return the resamples in the form that the metric is computed from."""
        whole = metric.weighted is None
        if whole not in self._weights:
            self._weights[whole] = draw_images(*self._how, whole=whole)
        return self._weights[whole]


def measure_level(stack: Stack, task: Task, metric: Metric, draws: Draws) -> LevelScores:
    """Return the scores of one level's seeds, the members of `stack`, as they are and in each draw."""
    weights = draws.weights(metric)
    # Weights of 1 give the score of the images as they are.
    as_they_are = np.ones((len(stack.label), 1), np.float32)
    plain = _resample(stack, task, metric, as_they_are)[:, 0]
    drawn = _resample(stack, task, metric, weights)
    parts = parts_of_score(stack, task, metric.name, draws.groups) if isinstance(task, ClassTask) else None
    if parts is None:
        # No mean of proportions: the score itself stands for one, of as many images as there are.
        units = len(stack.label) if draws.groups is None else len(np.unique(draws.groups))
        parts = plain[:, None], np.array([float(units)])
    return LevelScores(plain, drawn, *parts)


def _resample(stack: Stack, task: Task, metric: Metric, weights: Weights) -> NDArray[np.float64]:
    """Return the metric of each member in each resample: (M, B)."""
    scores = [resample_metric(metric, member, stack.label, task, weights) for member in stack.probability]
    return np.stack(scores)
