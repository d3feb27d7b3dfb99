"""How levels stand over many series: counts of ranks, steps that improved, quartiles. Frames in, frames out."""

import itertools

import numpy as np
import pandas as pd

COUNTED_RANKS = 5
"""Ranks that tables count, as arXiv 2404.15786 does."""


def count_ranks(scores: pd.DataFrame, most: int = COUNTED_RANKS) -> pd.DataFrame:
    """Return by level how often it has each rank, 1 the best.

    scores: (n series, k levels), higher is better; rows with a NaN are left out. Columns: mean_rank,
    rank_1 to rank_`most` (counts; at most k of them), series (n). Equal scores count for the better
    rank, and share the mean of their ranks in mean_rank.
    """
    complete = scores.dropna()
    ranks = complete.rank(axis=1, ascending=False, method="min")
    counted = pd.DataFrame({"mean_rank": complete.rank(axis=1, ascending=False).mean()})
    for rank in range(1, min(most, complete.shape[1]) + 1):
        counted[f"rank_{rank}"] = (ranks == rank).sum()
    return counted.assign(series=len(complete))


def count_steps(scores: pd.DataFrame) -> pd.DataFrame:
    """Return for each step between neighbouring levels in how many series the score rose.

    scores: (n series, k levels in order), higher is better; a series counts for a step where it has
    both levels. Columns: first, second, improved, equal (counts), series, share (improved of series,
    NaN where there is none), median (of the gain, score units).
    """
    rows = []
    levels = list(scores.columns)
    for first, second in itertools.pairwise(levels):
        gain = (scores[second] - scores[first]).dropna()
        improved = int((gain > 0).sum())
        equal = int((gain == 0).sum())
        share = improved / len(gain) if len(gain) else np.nan
        rows.append((first, second, improved, equal, len(gain), share, gain.median()))
    return pd.DataFrame(rows, columns=["first", "second", "improved", "equal", "series", "share", "median"])


def find_quartiles(scores: pd.DataFrame) -> pd.DataFrame:
    """Return by level the mean and the quartiles over the series: mean, q25, q50, q75, series.

    scores: (n series, k levels); rows with a NaN are left out. Between two scores a quartile is
    interpolated linearly, as numpy does.
    """
    complete = scores.dropna()
    found = pd.DataFrame({"mean": complete.mean()})
    for percent in (25, 50, 75):
        found[f"q{percent}"] = complete.quantile(percent / 100)
    return found.assign(series=len(complete))
