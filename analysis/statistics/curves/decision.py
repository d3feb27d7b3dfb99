"""Is it worth acting on a prediction? Net benefit against the probability from which one would act."""

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks import Weights

ACT_FROM: NDArray[np.float64] = np.linspace(0.02, 0.98, 49)
"""Threshold probabilities: who would act from 20 % on holds one missed case to be as bad as four false alarms."""


def net_benefit(score: NDArray[np.floating], truth: NDArray[np.bool_], weights: Weights) -> NDArray[np.float64]:
    """Return the net benefit of acting at each of ACT_FROM in each resample, (T, B).

    True positives minus false positives times the odds of the threshold, per image (Vickers and
    Elkin, Med. Decis. Making 2006). Acting on nobody has 0. score: probabilities (N,). truth: (N,).
    """
    order = np.argsort(score, kind="stable")
    wide = weights[order].astype(np.float64)
    positive = truth[order][:, None]
    # From each threshold on all images are called positive: what is below it is taken off.
    below = np.searchsorted(score[order], ACT_FROM.astype(score.dtype))
    hits = _from(wide * positive, below)
    alarms = _from(wide * ~positive, below)
    benefit: NDArray[np.float64] = (hits - alarms * _odds()[:, None]) / wide.sum(axis=0)
    return benefit


def _from(values: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of the rows from each place on, (T, B)."""
    nothing = np.zeros((1, values.shape[1]))
    reached = np.concatenate([nothing, np.cumsum(values, axis=0)])
    rest: NDArray[np.float64] = reached[-1] - reached[places]
    return rest


def benefit_of_all(truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the net benefit of acting on everybody at each of ACT_FROM, (T,)."""
    prevalence = float(truth.mean())
    benefit: NDArray[np.float64] = prevalence - (1 - prevalence) * _odds()
    return benefit


def _odds() -> NDArray[np.float64]:
    odds: NDArray[np.float64] = ACT_FROM / (1 - ACT_FROM)
    return odds
