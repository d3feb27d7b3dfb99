"""What a score hides: recall and F1 of each class, the confusions, and how far confidence can be trusted."""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.tasks import ClassTask, Label, Metric, Probability

BINS = 15


def class_scores(probability: Probability, label: Label, task: ClassTask, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one row per class: class, images (count), recall, precision and F1 (0 to 1, NaN where undefined).

    F1 is undefined where the class neither occurs nor is predicted.
    """
    counts = task.class_counts(probability, label)
    return pd.DataFrame(
        {
            "class": classes,
            "images": counts.images,
            "recall": _ratio(counts.right, counts.images),
            "precision": _ratio(counts.right, counts.predicted),
            "f1": _ratio(2 * counts.right, counts.images + counts.predicted),
        }
    )


def mask_scores(probability: Probability, label: Label, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return the columns of `class_scores` of the classes of masks: of their pixels, but for images, which show one.

    classes: without the background. F1 of pixels is the pooled Dice.
    """
    both, predicted = probability.sum(axis=0, dtype=np.float64).T
    truth = label.sum(axis=0).astype(np.float64)
    return pd.DataFrame(
        {
            "class": classes,
            "images": (label > 0).sum(axis=0),
            "recall": _ratio(both, truth),
            "precision": _ratio(both, predicted),
            "f1": _ratio(2 * both, truth + predicted),
        }
    )


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> pd.DataFrame:
    """Return the reliability diagram: one row per bin of equal width that holds a prediction.

    Columns: low, high (edges; a value on an edge belongs to the bin below), predictions (count),
    confidence and accuracy (means, 0 to 1).
    """
    edges = np.linspace(0, 1, bins + 1)
    # A confidence of exactly 0 would fall below the first bin.
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    frame = pd.DataFrame({"bin": place, "confidence": confidence, "right": right})
    grouped = frame.groupby("bin").agg(
        predictions=("right", "size"), confidence=("confidence", "mean"), accuracy=("right", "mean")
    )
    grouped.insert(0, "low", edges[grouped.index])
    grouped.insert(1, "high", edges[grouped.index + 1])
    return grouped.reset_index(drop=True)


def calibration_error(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return `expected_calibration_error` of predictions, 0 to 1; NaN without images."""
    confidence, right = task.confidences(probability, label)
    if not len(confidence):
        return math.nan
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gap = np.bincount(place, right - confidence, BINS)
    return float(np.abs(gap).sum() / len(confidence))


def brier_score(probability: Probability, label: Label, task: ClassTask) -> float:
    """Return the task's Brier score, 0 to 1."""
    return task.brier(probability, label)


CALIBRATION = (
    Metric("ece", "ECE", "expected calibration error", calibration_error, lower_is_better=True),
    Metric("brier", "Brier", "Brier score", brier_score, lower_is_better=True),
)
"""How far probabilities can be trusted, as metrics, so that they have intervals."""


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Return the mean distance of accuracy and confidence over the predictions (Guo et al., ICML 2017), 0 to 1."""
    share = bins["predictions"] / bins["predictions"].sum()
    return float((share * (bins["accuracy"] - bins["confidence"]).abs()).sum())
