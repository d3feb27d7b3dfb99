"""Which metrics a report is about: those that its tasks have, and the one that the answer uses."""

from collections.abc import Iterable

import pandas as pd

from raypatch.analysis.columns import score_column
from raypatch.tasks import Metric, find_metric, find_task, task_metrics


def shown_metrics(trials: pd.DataFrame, headline: Metric) -> tuple[Metric, ...]:
    """Return the metrics of the trials' tasks that some trial has a score of, in the order of the tables."""
    found: dict[str, Metric] = {}
    for task in _tasks(trials):
        for metric in task_metrics(find_task(task)):
            column = score_column("test", metric.name)
            if column in trials and trials[column].notna().any():
                found.setdefault(metric.name, metric)
    found.setdefault(headline.name, headline)
    return tuple(found.values())


def headline_metric(trials: pd.DataFrame, name: str | None) -> Metric:
    """Return the metric of the answer: the study's, else the default of the most frequent task.

    Raises ValueError for a metric that no trial has.
    """
    task = trials["task"].mode().iloc[0]
    metric = find_metric(name or find_task(task).default_metric, task)
    if score_column("test", metric.name) not in trials:
        raise ValueError(f"no trial has the score {metric.name}; these are there: {', '.join(known_scores(trials))}")
    return metric


def known_scores(trials: pd.DataFrame) -> list[str]:
    """Return the metrics that the trials' tasks have and the frame has columns for."""
    known = [metric.name for task in _tasks(trials) for metric in task_metrics(find_task(task))]
    return [name for name in dict.fromkeys(known) if score_column("test", name) in trials]


def _tasks(trials: pd.DataFrame) -> Iterable[str]:
    return list(dict.fromkeys(trials["task"].dropna()))
