"""What a score hides: recall and F1 of each class, the confusions, and how far confidence can be trusted."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.data.catalog import Task
from raypatch.tasks.metrics import Label, Probability, confusion_matrices, recalls

BINS = 15


def class_figures(probability: Probability, label: Label, task: Task, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one row per class: class, images (count), recall, precision and F1 (0 to 1, NaN where undefined).

    Multilabel: of each label's presence. F1 is undefined where the class neither occurs nor is predicted.
    """
    matrices = confusion_matrices(probability, label, task)
    if task == "multilabel":
        images, predicted, right = matrices[:, 1].sum(axis=1), matrices[:, :, 1].sum(axis=1), matrices[:, 1, 1]
        recall = recalls(matrices)[:, 1]
    else:
        (matrix,) = matrices
        images, predicted, right = matrix.sum(axis=1), matrix.sum(axis=0), np.diagonal(matrix)
        recall = recalls(matrices)[0]
    return pd.DataFrame(
        {
            "class": classes,
            "images": images,
            "recall": recall,
            "precision": _ratio(right, predicted),
            "f1": _ratio(2 * right, images + predicted),
        }
    )


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def confidences(probability: Probability, label: Label, task: Task) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probability of what was predicted and whether it was right: (N,), multilabel (N x C,)."""
    if task == "multilabel":
        flat, truth = probability.ravel().astype(np.float64), label.ravel().astype(bool)
        return np.maximum(flat, 1 - flat), (flat > 0.5) == truth
    return probability.max(axis=1).astype(np.float64), probability.argmax(axis=1) == label


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> pd.DataFrame:
    """Return the reliability diagram: one row per bin of equal width that holds a prediction.

    Columns: low, high (edges; a value on an edge belongs to the bin below), predictions (count), confidence and
    accuracy (means, 0 to 1).
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    frame = pd.DataFrame({"bin": place, "confidence": confidence, "right": right})
    grouped = frame.groupby("bin").agg(
        predictions=("right", "size"), confidence=("confidence", "mean"), accuracy=("right", "mean")
    )
    grouped.insert(0, "low", edges[grouped.index])
    grouped.insert(1, "high", edges[grouped.index + 1])
    return grouped.reset_index(drop=True)


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Return the mean distance of accuracy and confidence over the predictions (Guo et al., ICML 2017), 0 to 1."""
    share = bins["predictions"] / bins["predictions"].sum()
    return float((share * (bins["accuracy"] - bins["confidence"]).abs()).sum())


def brier_score(probability: Probability, label: Label, task: Task) -> float:
    """Return half the squared distance of probabilities and truth per image, 0 (best) to 1; multilabel: label mean.

    For two classes this is the mean squared error of the probability of class 1.
    """
    squares = probability.astype(np.float64)
    if task == "multilabel":
        return float(((squares - label) ** 2).mean())
    return float(((squares - np.eye(probability.shape[1])[label]) ** 2).sum(axis=1).mean() / 2)
