"""How many seeds a difference needs to be seen: after a run from its spread, before a run from assumptions."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from raypatch.analysis.statistics.inference import CONFIDENCE, LevelScores, Variances, mean_difference, split_variance
from raypatch.analysis.statistics.proportions import count_behind

POWER = 0.8
MOST_SEEDS = 1000

WITHIN, BETWEEN = 0.65, 0.5
"""How alike (correlation, within a class) two models are right on an image: two seeds of one level, and seeds of two
levels. Measured on BreastMNIST, DeiT-Tiny at patch 14, 7, 4: 0.46, 0.72, 0.70 within and 0.40, 0.42, 0.70 between."""


def seeds_needed(first: Sequence[LevelScores], second: Sequence[LevelScores], power: float = POWER) -> int | None:
    """Return with how many seeds of each level their mean difference over settings would be significant with `power`.

    As rough as the spread of the seeds at hand. None where more seeds cannot do it: one of the
    levels has a single seed, so that nothing is known of their spread, or the test images are too
    few.
    """
    found = mean_difference(first, second)
    if found.seeds < 2 or math.isnan(found.low):
        return None
    weights = np.repeat([1 / len(first), -1 / len(first)], len(first))
    variances = split_variance([*first, *second], weights)
    difference = found.estimate
    return _least_seeds(difference, variances, power)


def plan_seeds(
    images: Sequence[int],
    difference: float,
    *,
    score: float,
    seed_deviation: float,
    alike: tuple[float, float] = (WITHIN, BETWEEN),
    power: float = POWER,
) -> int | None:
    """Return how many seeds of each of two levels show a `difference` of balanced accuracy with `power`.

    images: test images of each class. score: of both levels, about, and of each class.
    seed_deviation: the standard deviation of the scores of seeds. alike: within and between levels,
    see `WITHIN`. Scores are 0 to 1. None where no number of seeds does it, because the test images
    are too few.
    """
    return _least_seeds(difference, assumed_variances(images, score, seed_deviation, alike), power)


def least_difference(
    images: Sequence[int],
    seeds: int,
    *,
    score: float,
    seed_deviation: float,
    alike: tuple[float, float] = (WITHIN, BETWEEN),
    power: float = POWER,
) -> float | None:
    """Return the smallest difference that `seeds` seeds of each level show, see `plan_seeds`; None where none does."""
    if seeds < 2:
        return None
    variances = assumed_variances(images, score, seed_deviation, alike)
    low, high = 0.0, 1.0
    if _power(high, variances, seeds) < power:
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, variances, seeds) >= power else (middle, high)
    return high


def assumed_variances(
    images: Sequence[int], score: float, seed_deviation: float, alike: tuple[float, float]
) -> Variances:
    """Return the variances of a difference of two levels that are alike, each with two seeds."""
    within, between = alike
    of_images = score * (1 - score) / count_behind(np.array(images, float))
    own = of_images * (1 - within)
    spread = max(seed_deviation**2, own)  # seeds differ at least by the images that each errs on
    shared = 2 * of_images * max(within - between, 0.0)
    return Variances(shared, shared, np.full(2, spread), np.full(2, own), np.full(2, 2))


def _least_seeds(difference: float, variances: Variances, power: float) -> int | None:
    low, high = 2, MOST_SEEDS
    if _power(difference, variances, high) < power:
        return None
    while low < high:  # the power grows with the seeds
        middle = (low + high) // 2
        if _power(difference, variances, middle) < power:
            low = middle + 1
        else:
            high = middle
    return low


def _power(difference: float, variances: Variances, seeds: int) -> float:
    """Return how often the test finds a true `difference` with `seeds` seeds of each level, two-sided."""
    planned = replace(variances, seeds=np.full_like(variances.seeds, seeds))
    true_error = math.sqrt(planned.any_seeds + planned.spread.sum() / seeds)
    # The test takes the seeds' spread somewhat wider than it is (`Variances.of_seeds`): its statistic is smaller.
    shrink = true_error / planned.error()
    freedom = planned.freedom()
    critical = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) / shrink
    shift = abs(difference) / true_error
    if math.isinf(freedom) or freedom > 1e5:
        return float(stats.norm.sf(critical - shift))
    return float(stats.nct.sf(critical, freedom, shift))
