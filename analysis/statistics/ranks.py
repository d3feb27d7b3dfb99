"""Tests across datasets: do levels rank differently (Friedman), and which pairs differ (Nemenyi, Wilcoxon).

After Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05
DIGITS = 12
NOTHING = 0.5 * 10**-DIGITS
"""Scores run 0 to 1: a smaller difference is rounding."""


@dataclass(frozen=True)
class RankTest:
    """Ranks of k levels over n datasets, 1 the best, and what tests say of them.

    ranks: mean rank by level, best first. statistic, p: Friedman's; NaN where k < 3, n < 2 or all
    scores are equal. critical_difference: mean ranks that differ by more differ significantly at 5
    % (Nemenyi). nemenyi: p-values, (k, k). wilcoxon: one row per pair: first, second, median (of
    first - second, score units), equal (datasets without a difference, which the test leaves out),
    p, p_holm, p_bonferroni. left_out: datasets without a score for every level.
    """

    datasets: tuple[str, ...]
    left_out: tuple[str, ...]
    ranks: pd.Series
    statistic: float
    p: float
    critical_difference: float
    nemenyi: pd.DataFrame
    wilcoxon: pd.DataFrame

    @property
    def least_p(self) -> float:
        """The smallest p that a pair could have, were every dataset to favour the same level."""
        return least_wilcoxon_p(len(self.datasets))

    @property
    def can_be_significant(self) -> bool:
        """Whether any pair could pass the correction, which asks ALPHA / pairs of the smallest p."""
        return self.least_p < ALPHA / len(self.wilcoxon)


def compare_ranks(scores: pd.DataFrame) -> RankTest:
    """Compare the columns (levels) of `scores`, (n datasets, k levels), higher is better.

    Rows with a NaN are left out. Raises ValueError below two datasets or two levels.
    """
    complete = scores.dropna()
    n, k = complete.shape
    if n < 2 or k < 2:
        raise ValueError(f"a test across datasets needs two datasets with every level and two levels, not {n} and {k}")
    ranks = complete.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    statistic, p = _friedman(complete)
    return RankTest(
        datasets=tuple(map(str, complete.index)),
        left_out=tuple(map(str, scores.index.difference(complete.index, sort=False))),
        ranks=ranks,
        statistic=statistic,
        p=p,
        critical_difference=critical_difference(k, n),
        nemenyi=_nemenyi(complete),
        wilcoxon=_compare_pairs(complete),
    )


def critical_difference(k: int, n: int, alpha: float = ALPHA) -> float:
    """Return Nemenyi's critical difference of mean ranks of k treatments over n datasets (Demšar, 3.2.2)."""
    q = stats.studentized_range.ppf(1 - alpha, k, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(k * (k + 1) / (6 * n)))


def _friedman(complete: pd.DataFrame) -> tuple[float, float]:
    if complete.shape[1] < 3 or complete.eq(complete.iloc[:, 0], axis=0).all(axis=None):
        return math.nan, math.nan
    found = stats.friedmanchisquare(*complete.to_numpy().T)
    return float(found.statistic), float(found.pvalue)


def _nemenyi(complete: pd.DataFrame) -> pd.DataFrame:
    # Here, because it loads statsmodels and seaborn, which take seconds.
    import scikit_posthocs

    found = scikit_posthocs.posthoc_nemenyi_friedman(complete.to_numpy())
    return pd.DataFrame(found.to_numpy(), index=complete.columns, columns=complete.columns)


def least_wilcoxon_p(n: int) -> float:
    """Return the smallest two-sided p that Wilcoxon's exact test has on n differences: 2 of 2^n orders of signs."""
    return min(1.0, 2.0 ** (1 - n))


def _compare_pairs(complete: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for first, second in itertools.combinations(complete.columns, 2):
        difference = (complete[first] - complete[second]).to_numpy(float)
        equal = int((np.abs(difference) < NOTHING).sum())
        rows.append((first, second, float(np.median(difference)), equal, wilcoxon_p(difference)))
    table = pd.DataFrame(rows, columns=["first", "second", "median", "equal", "p"])
    return table.assign(p_holm=correct_holm(table["p"]), p_bonferroni=correct_bonferroni(table["p"]))


def wilcoxon_p(difference: NDArray[np.float64]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test on paired differences (n,), exact; 1 where all are 0.

    Exact also with ties, where scipy would otherwise take the normal approximation: with 12
    datasets that never falls below .0022, and 45 pairs ask for .0011. Differences of 0 are left out
    (Wilcoxon's own rule); equal sizes share their rank, and a rank sum that is no whole number is
    rounded to the side of no difference, so that p is never too small.
    """
    # Means over settings differ in their last digits where the scores do not: 0 and ties must be seen as such.
    exact = np.round(difference, DIGITS)
    exact = exact[exact != 0]
    if not len(exact):
        return 1.0
    return float(stats.wilcoxon(exact, method="exact").pvalue)


def correct_bonferroni(p: pd.Series) -> pd.Series:
    """Return the p-values times the number of those that are defined, at most 1; NaN stays NaN."""
    return (p * p.notna().sum()).clip(upper=1)


def correct_holm(p: pd.Series) -> pd.Series:
    """Return the p-values after Holm's correction over those that are defined; NaN stays NaN."""
    known = p.dropna().sort_values(kind="stable")
    # Written out: statsmodels' function collects garbage at each call, which takes up to a second beside torch.
    raised = np.maximum.accumulate(known.to_numpy(float) * np.arange(len(known), 0, -1))
    return pd.Series(raised.clip(max=1), index=known.index, dtype=float).reindex(p.index)
