"""What is asked of an image: loss, predictions and metrics.

One file adds a task, one entry a metric.
"""

from raypatch.tasks.protocols import (
    ClassCounts,
    Label,
    Metric,
    Probability,
    Task,
    UndefinedMetricWarning,
    Weights,
)
from raypatch.tasks.registry import find_metric, find_task, score_names, task_metrics
from raypatch.tasks.weighted import resample_metric, weighted_auc

__all__ = [
    "ClassCounts",
    "Label",
    "Metric",
    "Probability",
    "Task",
    "UndefinedMetricWarning",
    "Weights",
    "find_metric",
    "find_task",
    "resample_metric",
    "score_names",
    "task_metrics",
    "weighted_auc",
]
