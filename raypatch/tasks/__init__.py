"""What is asked of an image: loss, predictions and metrics.

One file adds a task, one entry a metric.
"""

from raypatch.tasks.protocols import (
    ClassCounts,
    ClassTask,
    Label,
    MaskTask,
    Metric,
    Probability,
    Task,
    UndefinedMetricWarning,
    Weights,
)
from raypatch.tasks.registry import find_metric, find_task, reads_masks, score_names, task_metrics
from raypatch.tasks.weighted import resample_metric, weighted_auc

__all__ = [
    "ClassCounts",
    "ClassTask",
    "Label",
    "MaskTask",
    "Metric",
    "Probability",
    "Task",
    "UndefinedMetricWarning",
    "Weights",
    "find_metric",
    "find_task",
    "reads_masks",
    "resample_metric",
    "score_names",
    "task_metrics",
    "weighted_auc",
]
