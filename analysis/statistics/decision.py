"""Is it worth acting on a prediction? Net benefit against the probability from which one would act."""

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks import Weights

ACT_FROM: NDArray[np.float64] = np.linspace(0.01, 0.99, 99)
"""Threshold probabilities: who would act from 20 % on holds one missed case to be as bad as four false alarms."""


def net_benefit(score: NDArray[np.floating], truth: NDArray[np.bool_], weights: Weights) -> NDArray[np.float64]:
    """Return the net benefit of acting at each of ACT_FROM in each resample, (T, B).

    True positives minus false positives times the odds of the threshold, per image (Vickers and
    Elkin, Med. Decis. Making 2006). Acting on nobody has 0. score: probabilities (N,). truth: (N,).
    """
    act = (score[None, :] >= ACT_FROM[:, None]).astype(np.float32)
    total = weights.sum(axis=0)
    hits = (act * truth) @ weights / total
    alarms = (act * ~truth) @ weights / total
    benefit: NDArray[np.float64] = hits - alarms * _odds()[:, None]
    return benefit


def benefit_of_all(truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the net benefit of acting on everybody at each of ACT_FROM, (T,)."""
    prevalence = float(truth.mean())
    benefit: NDArray[np.float64] = prevalence - (1 - prevalence) * _odds()
    return benefit


def _odds() -> NDArray[np.float64]:
    odds: NDArray[np.float64] = ACT_FROM / (1 - ACT_FROM)
    return odds
