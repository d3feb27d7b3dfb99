"""ROC and precision-recall curves of one question, on the images as they are and in each resample."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks import Weights

GRID: NDArray[np.float64] = np.linspace(0, 1, 51)
"""Where curves of several seeds are averaged: the false positive rate of ROC, the recall of PR."""

Kind = Literal["roc", "pr"]


def curve_on_grid(
    kind: Kind, score: NDArray[np.floating], truth: NDArray[np.bool_], weights: Weights
) -> NDArray[np.float64]:
    """Return a curve at each point of GRID in each of B resamples, (G, B); NaN without positives or negatives.

    roc: the true positive rate at a false positive rate, on the straight lines between the points;
    curves are averaged upright (Fawcett, Pattern Recognit. Lett. 2006). pr: the precision of the
    strictest threshold that reaches a recall, without lines, which would promise too much (Davis
    and Goadrich, ICML 2006). score: (N,). truth: (N,). weights: (N, B).
    """
    if truth.all() or not truth.any():
        return np.full((len(GRID), weights.shape[1]), np.nan)
    positives, negatives = _cumulated(score, truth, weights)
    read = _read_roc if kind == "roc" else _read_pr
    columns = [read(*column) for column in zip(positives.T, negatives.T, strict=True)]
    return np.stack(columns, axis=1)


def average_precision(score: NDArray[np.floating], truth: NDArray[np.bool_], weights: Weights) -> NDArray[np.float64]:
    """Return the area under the precision-recall curve in each resample, (B,), as scikit-learn defines it."""
    if not truth.any():
        return np.full(weights.shape[1], np.nan)
    positives, negatives = _cumulated(score, truth, weights)
    precision = _share(positives, positives + negatives)
    gained = np.diff(positives, axis=0, prepend=0) / positives[-1]
    area: NDArray[np.float64] = (gained * precision).sum(axis=0)
    return area


def _cumulated(
    score: NDArray[np.floating], truth: NDArray[np.bool_], weights: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weight of positives and of negatives at or above each distinct score, from the highest: (T, B)."""
    order = np.argsort(-score, kind="stable")
    sorted_score = score[order]
    # Equal scores lie on the same side of every threshold: only the last of them is a point.
    last = np.flatnonzero(np.append(np.diff(sorted_score) != 0, True))
    wide = weights[order].astype(np.float64)
    positive = truth[order][:, None]
    return np.cumsum(wide * positive, axis=0)[last], np.cumsum(wide * ~positive, axis=0)[last]


def _read_roc(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> NDArray[np.float64]:
    # The curve begins at (0, 0), where nothing is called positive.
    hit = np.concatenate([[0.0], positives / positives[-1]])
    false = np.concatenate([[0.0], negatives / negatives[-1]])
    rates: NDArray[np.float64] = np.interp(GRID, false, hit)
    return rates


def _read_pr(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> NDArray[np.float64]:
    recall = positives / positives[-1]
    precision = _share(positives, positives + negatives)
    # A recall of 0 is reached by the first threshold that finds anything; rounding must not skip a point.
    wanted = np.maximum(GRID, recall[recall > 0][0])
    place = np.searchsorted(recall, wanted - 1e-12)
    reached: NDArray[np.float64] = precision[np.minimum(place, len(recall) - 1)]
    return reached


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.zeros_like(whole)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
