"""The area under an ROC curve with the error that the choice of the cases gives it, without resampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from raypatch.analysis.statistics.inference import CONFIDENCE


@dataclass(frozen=True)
class Areas:
    """Areas under the ROC curves of K scores on the same cases. area: (K,). covariance: (K, K)."""

    area: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def interval(self, place: int = 0) -> tuple[float, float]:
        """Return the 95 % bounds of one area, within 0 to 1 (Wald's, as DeLong's are)."""
        half = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(self.covariance[place, place])
        return max(0.0, float(self.area[place]) - half), min(1.0, float(self.area[place]) + half)

    def difference(self) -> tuple[float, float, float]:
        """Return the first area minus the second, its standard error and the two-sided p."""
        gap = float(self.area[0] - self.area[1])
        contrast = np.array([1.0, -1.0])
        error = math.sqrt(max(float(contrast @ self.covariance[:2, :2] @ contrast), 0.0))
        # Two scores that order the cases alike have no error: equal for sure.
        p = float(2 * norm.sf(abs(gap) / error)) if error > 0 else 1.0
        return gap, error, p


def delong(scores: Sequence[NDArray[np.floating]], truth: NDArray[np.bool_]) -> Areas:
    """Return the areas of K scores (N,) each, and their covariance.

    DeLong, DeLong and Clarke-Pearson (Biometrics 1988), by the ranks of Sun and Xu (IEEE Signal
    Process. Lett. 2014). truth: (N,), whether a case is positive. All NaN without two cases of
    each kind, for which no variance is known.
    """
    count = len(scores)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < 2:
        return Areas(np.full(count, math.nan), np.full((count, count), math.nan))
    of_positives, of_negatives = [], []
    for score in scores:
        ranks = rankdata(score)
        # The share of negatives below each positive, and of positives above each negative; ties count half.
        below = (ranks[truth] - rankdata(score[truth])) / negatives
        above = 1 - (ranks[~truth] - rankdata(score[~truth])) / positives
        of_positives.append(below)
        of_negatives.append(above)
    area = np.array([below.mean() for below in of_positives])
    covariance = np.cov(of_positives) / positives + np.cov(of_negatives) / negatives
    return Areas(area, np.atleast_2d(covariance))
