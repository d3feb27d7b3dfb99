"""Which metrics a report is about: those that its tasks have, and the one that the answer uses."""

from collections.abc import Iterator

import pandas as pd

from raypatch.analysis.frames.columns import score_column
from raypatch.tasks import Metric, find_metric, find_task, task_metrics


def shown_metrics(trials: pd.DataFrame, headline: Metric) -> tuple[Metric, ...]:
    """Return the metrics of the trials' tasks that some trial has a score of, in the order of the tables.

    One that tables do not always show is there where the answer is about it.
    """
    shown: dict[str, Metric] = {}
    for metric in _known_metrics(trials):
        if metric.always_shown and trials[score_column("test", metric.name)].notna().any():
            shown.setdefault(metric.name, metric)
    shown.setdefault(headline.name, headline)
    return tuple(shown.values())


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
    names = [metric.name for metric in _known_metrics(trials)]
    return list(dict.fromkeys(names))


def _known_metrics(trials: pd.DataFrame) -> Iterator[Metric]:
    """The metrics of each task that the frame has columns for; what several tasks share comes several times."""
    for task in trials["task"].dropna().unique():
        for metric in task_metrics(find_task(task)):
            if score_column("test", metric.name) in trials:
                yield metric
