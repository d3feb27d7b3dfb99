"""How sure a score, a difference or a mean over settings is: the test images and the seeds, both as samples.

The images are resampled, the seeds enter by the spread of their scores, and a t distribution with
Satterthwaite's degrees of freedom pays for how few seeds there are. This is the analysis of several
readers and cases (Obuchowski and Rockette 1995; Hillis, Stat. Med. 2007) with the seeds as readers.
Coverage: `benchmarks/statistics_coverage.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raypatch.analysis.statistics.proportions import count_behind, unseen_variance, wilson

CONFIDENCE = 0.95
NOTHING = 1e-12
"""A variance below this is rounding."""

Centre = Literal["mean", "median"]


@dataclass(frozen=True)
class LevelScores:
    """Scores of the M seeds of one level in one setting, on the same test images.

    plain: (M,), on the images as they are. drawn: (M, B), in each resample. shares: (M, K), the
    proportions whose mean the score is, and counts: (K,), of how many images each; see
    `parts_of_score`. A score that is no mean of such proportions: itself, (M, 1), and the number of
    images (or patients).
    """

    plain: NDArray[np.float64]
    drawn: NDArray[np.float64]
    shares: NDArray[np.float64]
    counts: NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    p: two-sided, of no difference; NaN for a score that is compared with nothing and wherever a
    level has one seed. seeds: of the level with the fewest. scope: what the interval speaks of;
    with one seed of a level, that the test images could be others while the trained models stay.
    freedom: degrees of the t distribution. image_error, seed_error: standard errors from the choice
    of the images and from the luck of training, NaN with one seed.
    """

    estimate: float
    low: float
    high: float
    p: float = math.nan
    seeds: int = 0
    scope: Literal["images", "images and seeds"] = "images and seeds"
    freedom: float = math.inf
    image_error: float = math.nan
    seed_error: float = math.nan


@dataclass(frozen=True)
class Variances:
    """What the variance of a sum of coefficient × score over L levels is made of.

    these_seeds: from the images, for the seeds at hand. any_seeds: from the images, the part that
    all seeds share. spread: sample variance over the seeds of each level times its squared
    coefficient. own: the part of `spread` that the images explain: each seed errs on some images
    that others get right. seeds: M of each level.
    """

    these_seeds: float
    any_seeds: float
    spread: NDArray[np.float64]
    own: NDArray[np.float64]
    seeds: NDArray[np.int64]

    def of_seeds(self) -> NDArray[np.float64]:
        """Return the variance of each level's mean over its seeds, (L,).

        The sample variance of three seeds is often far too small by luck. One more squared
        deviation, as large as the images alone make it, is added to its sum of squares; the
        simulations chose that one among 0, 0.5, 1, 1.5, 2.
        """
        added: NDArray[np.float64] = self.own / (self.seeds - 1)
        return (self.spread + added) / self.seeds

    def one_seed(self) -> bool:
        """Return whether a level has one seed: then nothing is known of the luck of training."""
        return bool(self.seeds.min() == 1)

    def error(self) -> float:
        """Return the standard error; with one seed, of the images alone."""
        if self.one_seed():
            return math.sqrt(self.these_seeds)
        return math.sqrt(self.any_seeds + self.of_seeds().sum())

    def freedom(self) -> float:
        """Return Satterthwaite's degrees of freedom; the images' part counts as known."""
        if self.one_seed():
            return math.inf
        seeds = self.of_seeds()
        total = self.any_seeds + seeds.sum()
        uncertain = (seeds**2 / (self.seeds - 1)).sum()
        return float(total**2 / uncertain) if uncertain > 0 else math.inf


def score_interval(
    level: LevelScores, *, centre: Centre = "mean", bounds: tuple[float, float] | None = (0, 1)
) -> Interval:
    """Return the mean (or median) of a level's scores over its seeds with its interval.

    bounds: what the score cannot leave; None for a loss. A score outside of them has an interval
    without bounds.
    """
    return mean_interval([level], centre=centre, bounds=bounds)


def mean_interval(
    levels: Sequence[LevelScores], *, centre: Centre = "mean", bounds: tuple[float, float] | None = (0, 1)
) -> Interval:
    """Return the mean over several settings of one level, each averaged over its seeds, with its interval.

    The settings share images where their resamples were drawn alike, else not. The interval never
    collapses: it is Wilson's for a proportion of as many images as have this variance.
    """
    weights = np.full(len(levels), 1 / len(levels))
    estimate = _estimate(levels, weights, centre)
    if _is_undefined(levels, estimate):
        return Interval(estimate, math.nan, math.nan, seeds=_fewest(levels))
    variances = split_variance(levels, weights, centre)
    error, freedom = variances.error(), variances.freedom()
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    low, high = estimate - t * error, estimate + t * error
    # Near 0 or 1 these may lie outside of what the score can be.
    if bounds is not None and bounds[0] <= estimate <= bounds[1]:
        low, high = _bounded(levels, estimate, error, t, bounds)
    return _interval(variances, estimate, low, high)


def value_interval(
    plain: NDArray[np.float64],
    drawn: NDArray[np.float64],
    count: float,
    bounds: tuple[float, float] | None = (0, 1),
) -> Interval:
    """Return the mean over M seeds of a value that is a share of `count` images, with its interval.

    plain: (M,). drawn: (M, B). One that is 0 or 1 in every resample gets the width that so many
    images allow.
    """
    level = LevelScores(plain, drawn, plain[:, None], np.array([max(float(count), 1.0)]))
    return score_interval(level, bounds=bounds)


def difference_interval(first: LevelScores, second: LevelScores, *, centre: Centre = "mean") -> Interval:
    """Return how much `first` scores above `second` on the same resamples, with interval and p.

    Paired by image, not by seed: the same number of a seed in two levels stands for other initial
    weights and another course, and pairs of three cost more in degrees of freedom than they could
    give.
    """
    return mean_difference([first], [second], centre=centre)


def mean_difference(
    first: Sequence[LevelScores], second: Sequence[LevelScores], *, centre: Centre = "mean", paired: bool = True
) -> Interval:
    """Return the mean difference of two levels over the settings that both have, in the same order.

    paired: both were scored on the same images, in the same resamples; else on other images, drawn
    apart.
    """
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} settings of one level and {len(second)} of the other: take those that both have"
        )
    weights = np.repeat([1 / len(first), -1 / len(first)], len(first))
    levels = [*first, *second]
    estimate = _estimate(levels, weights, centre)
    if _is_undefined(levels, estimate):
        return Interval(estimate, math.nan, math.nan, seeds=_fewest(levels))
    variances = split_variance(levels, weights, centre, paired=paired)
    error, freedom = variances.error(), variances.freedom()
    if error == 0 and not paired:
        # A model that always says one class scores the same in each draw: that says nothing of other images.
        return Interval(estimate, math.nan, math.nan, seeds=_fewest(levels))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = math.nan if variances.one_seed() or error == 0 else float(2 * stats.t.sf(abs(estimate) / error, freedom))
    return _interval(variances, estimate, estimate - half, estimate + half, p)


def split_variance(
    levels: Sequence[LevelScores], weights: NDArray[np.float64], centre: Centre = "mean", *, paired: bool = True
) -> Variances:
    """Return the variances behind the sum of weight × score over the levels; weights: (L,). paired: of a difference."""
    seeds = np.array([len(level.plain) for level in levels])
    owner = np.repeat(np.arange(len(levels)), seeds)
    drawn = np.concatenate([level.drawn for level in levels])
    # A resample may leave a score undefined, such as that of a class without an image: it is left out for all.
    covariance = np.atleast_2d(np.cov(drawn[:, ~np.isnan(drawn).any(axis=0)]))
    # Every seed counts alike within its level: its share of the level's weight.
    share = (weights / seeds)[owner]
    these = float(share @ covariance @ share)
    own, spread = np.zeros(len(levels)), np.zeros(len(levels))
    for place, level in enumerate(levels):
        block = covariance[np.ix_(owner == place, owner == place)]
        if seeds[place] > 1:
            own[place] = weights[place] ** 2 * _own_noise(block)
            spread[place] = weights[place] ** 2 * level.plain.var(ddof=1)
    shares, counts = [level.shares for level in levels], [level.counts for level in levels]
    unseen = unseen_variance(shares, counts, weights, equal=these < NOTHING, paired=paired)
    # What is not any seed's own stays, however many seeds there are.
    shared = max(these - float((own / seeds).sum()), 0.0)
    price = _price_of_median(seeds) if centre == "median" else np.ones(len(levels))
    return Variances(these + unseen, shared + unseen, price * spread, price * own, seeds)


def _own_noise(block: NDArray[np.float64]) -> float:
    """Return how much of a seed's variance over resamples the other seeds do not share, from (M, M)."""
    members = len(block)
    mean_variance = np.trace(block) / members
    mean_covariance = (block.sum() - np.trace(block)) / (members * (members - 1))
    return max(float(mean_variance - mean_covariance), 0.0)


def _price_of_median(seeds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how much more a median of M normal values varies than their mean, nearly: π/2 for many, 1 for two."""
    price: NDArray[np.float64] = np.pi / 2 * seeds / (seeds + np.pi / 2 - 1)
    return np.where(seeds <= 2, 1.0, price)


def _estimate(levels: Sequence[LevelScores], weights: NDArray[np.float64], centre: Centre) -> float:
    locate = np.median if centre == "median" else np.mean
    total = 0.0
    for weight, level in zip(weights, levels, strict=True):
        total += weight * locate(level.plain)
    return float(total)


def _is_undefined(levels: Sequence[LevelScores], estimate: float) -> bool:
    """Return whether there is no score, or are no two resamples that all levels have a score in."""
    lacking = np.any([np.isnan(level.drawn).any(axis=0) for level in levels], axis=0)
    return math.isnan(estimate) or int((~lacking).sum()) < 2


def _fewest(levels: Sequence[LevelScores]) -> int:
    return min(len(level.plain) for level in levels)


def _bounded(
    levels: Sequence[LevelScores], estimate: float, error: float, t: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Return Wilson's bounds, with the effective number of images that the error stands for."""
    least, most = bounds
    share = (estimate - least) / (most - least)
    spread = error / (most - least)
    if 0 < share < 1 and error**2 > NOTHING:
        low, high = wilson(share, share * (1 - share) / spread**2, t)
    else:
        # All right or all wrong: there is no variance to take a number of images from.
        behind = [count_behind(level.counts) for level in levels]
        low, high = wilson(share, count_behind(np.array(behind)), t)
        low, high = min(low, max(share - t * spread, 0.0)), max(high, min(share + t * spread, 1.0))
    return least + low * (most - least), least + high * (most - least)


def _interval(variances: Variances, estimate: float, low: float, high: float, p: float = math.nan) -> Interval:
    one_seed = variances.one_seed()
    images = variances.these_seeds if one_seed else variances.any_seeds
    return Interval(
        estimate=estimate,
        low=low,
        high=high,
        p=p,
        seeds=int(variances.seeds.min()),
        scope="images" if one_seed else "images and seeds",
        freedom=variances.freedom(),
        image_error=math.sqrt(images),
        seed_error=math.nan if one_seed else math.sqrt(variances.of_seeds().sum()),
    )
