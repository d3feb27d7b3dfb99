"""Scores of predictions by the name of their task."""

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks.protocols import Label, Probability, UndefinedMetricWarning
from raypatch.tasks.registry import find_task
from raypatch.tasks.scores import recalls

__all__ = ["Label", "Probability", "UndefinedMetricWarning", "confusion_matrices", "predicted_classes", "recalls"]


def score(probability: Probability, label: Label, task: str, loss: float | None = None) -> dict[str, float]:
    """Score one split."""
    return find_task(task).score(probability, label, loss)


def predicted_classes(probability: Probability, task: str) -> NDArray[np.int64]:
    """Return what is predicted, in the form of a label."""
    return find_task(task).predicted(probability)


def confusion_matrices(probability: Probability, label: Label, task: str) -> NDArray[np.int64]:
    """Count images by true (row) and predicted (column) class."""
    return find_task(task).confusions(probability, label)


def log_loss(probability: Probability, label: Label, task: str) -> float:
    """Return the mean loss in nats per image."""
    return find_task(task).log_loss(probability, label)
