"""From a probability to a decision: a threshold chosen on validation, and what it does on other images."""

import math

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks import Weights

RATES = ("sensitivity", "specificity", "ppv", "npv")


def choose_threshold(score: NDArray[np.floating], truth: NDArray[np.bool_], sensitivity: float | None = None) -> float:
    """Return the threshold at or above which an image is called positive.

    sensitivity: the highest threshold that reaches it. None: Youden's (Cancer 1950), which makes
    sensitivity + specificity largest, the highest of equals. NaN without positives or negatives.
    """
    if truth.all() or not truth.any():
        return math.nan
    # Loads slowly, and few reports need it.
    from sklearn.metrics import roc_curve

    false, hit, thresholds = roc_curve(truth, score, drop_intermediate=False)
    # The first threshold is infinite: nothing is positive, which is no decision.
    false, hit, thresholds = false[1:], hit[1:], thresholds[1:]
    if sensitivity is None:
        return float(thresholds[np.argmax(hit - false)])
    # Rounding must not demand one positive more.
    return float(thresholds[np.argmax(hit >= sensitivity - 1e-12)])


def rates_at(
    threshold: float, score: NDArray[np.floating], truth: NDArray[np.bool_], weights: Weights
) -> dict[str, NDArray[np.float64]]:
    """Return each of RATES in each resample, (B,); NaN where it has no image to be a share of.

    sensitivity: of the positives, called so. specificity: of the negatives, called so. ppv, npv: of
    those called positive (negative), truly so, at the prevalence of these images.
    """
    if math.isnan(threshold):
        return {name: np.full(weights.shape[1], np.nan) for name in RATES}
    called = score >= threshold
    wide = weights.astype(np.float64)
    right_positive, missed = wide[called & truth].sum(axis=0), wide[~called & truth].sum(axis=0)
    right_negative, false_alarm = wide[~called & ~truth].sum(axis=0), wide[called & ~truth].sum(axis=0)
    return {
        "sensitivity": _ratio(right_positive, right_positive + missed),
        "specificity": _ratio(right_negative, right_negative + false_alarm),
        "ppv": _ratio(right_positive, right_positive + false_alarm),
        "npv": _ratio(right_negative, right_negative + missed),
    }


def behind_rates(threshold: float, score: NDArray[np.floating], truth: NDArray[np.bool_]) -> dict[str, int]:
    """Return of how many images each of RATES is a share."""
    called = score >= threshold
    return {
        "sensitivity": int(truth.sum()),
        "specificity": int((~truth).sum()),
        "ppv": int(called.sum()),
        "npv": int((~called).sum()),
    }


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
