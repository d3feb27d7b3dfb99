"""Test images drawn anew, the same draw for all that is compared, and the scores of a level in each draw."""

import numpy as np
from numpy.typing import NDArray

from raypatch.analysis.statistics.inference import LevelScores
from raypatch.analysis.statistics.proportions import parts_of_score
from raypatch.analysis.statistics.resampling import resample_scores
from raypatch.analysis.statistics.stacks import Stack
from raypatch.data.catalog import Task

RESAMPLES = 1000

Weights = NDArray[np.float32]
"""(N, B): how much each of N images counts in each of B resamples; each column sums to N."""


def draw_images(
    label: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0, groups: NDArray[np.generic] | None = None
) -> Weights:
    """Draw weights of the images, (N, B), whatever their class: a Bayesian bootstrap (Rubin, Ann. Stat. 1981).

    A count of draws may leave a rare class out, whose recall then has no value; these weights are above 0 for every
    image. label: (N,) or (N, C). groups: (N,), who is on an image; images of one patient share one weight. Give
    different `seed`s to datasets whose scores are averaged. Raises ValueError for groups of another length.
    """
    images = len(label)
    names = np.arange(images) if groups is None else np.asarray(groups)
    if len(names) != images:
        raise ValueError(f"{len(names)} groups for {images} images: give one group for each image")
    _, unit = np.unique(names, return_inverse=True)
    shape = _shapes(label, unit)[:, None]
    drawn = np.random.default_rng(seed).standard_gamma(shape, (len(shape), resamples)) / shape
    weights = drawn[unit]
    weights *= images / weights.sum(axis=0)
    return weights.astype(np.float32)


def _shapes(label: NDArray[np.int64], unit: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Gamma shape of each unit, (U,): 1 - 2/n where n units show its (rarest) class.

    With shape 1, Rubin's, the variance of a mean over n is short by (n + 1) / (n - 1); this shape makes up for it.
    """
    classes = label if label.ndim == 1 else np.zeros(len(label), np.int64)
    shape = np.ones(unit.max() + 1)
    for own in np.unique(classes):
        members = np.unique(unit[classes == own])
        shape[members] = np.minimum(shape[members], max(1 - 2 / len(members), 1 / 3))
    return shape


def measure_level(
    stack: Stack, task: Task, metric: str, weights: Weights, groups: NDArray[np.generic] | None = None
) -> LevelScores:
    """Return the scores of one level's seeds, as they are and in each draw; `weights` and `groups` as drawn."""
    as_they_are = np.ones((len(stack.label), 1), np.float32)
    plain = resample_scores(stack, task, metric, as_they_are)[:, 0]
    drawn = resample_scores(stack, task, metric, weights)
    parts = parts_of_score(stack, task, metric, groups)
    if parts is None:
        units = len(stack.label) if groups is None else len(np.unique(groups))
        parts = plain[:, None], np.array([float(units)])
    return LevelScores(plain, drawn, *parts)
