"""What tests of classes and of masks on other data share: what is asked, and scores beside each other."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypatch.analysis.external.seen import LEARNT, Seen
from raypatch.analysis.report_parts import Report
from raypatch.analysis.show.external import EXTERNAL, INTERNAL
from raypatch.analysis.statistics.draws import Draws, measure_level
from raypatch.analysis.statistics.inference import LevelScores, mean_difference, score_interval
from raypatch.analysis.statistics.stacks import Stack
from raypatch.data.catalog import Split
from raypatch.predict import FinishedTrial
from raypatch.results import Predictions, read_predictions
from raypatch.tasks import Metric, Task, UndefinedMetricWarning


@dataclass(frozen=True)
class Asked:
    """What an external test is about.

    data: see `open_source`. dataset, level: which model, where the run has several; its level by
    validation where none is named. split: of the data. rename: classes of the data by the model's
    names. columns: of a table. sensitivity: what thresholds of classes have to reach on validation.
    """

    data: Path
    dataset: str | None = None
    level: str | None = None
    split: Split = "test"
    rename: Mapping[str, str] | None = None
    columns: Mapping[str, str] | None = None
    sensitivity: float | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Tested:
    """What an external test found. tables: CSV files by name, a row per image or patient."""

    report: Report
    tables: Mapping[str, str]
    seen: Seen


def internal_stack(members: Sequence[FinishedTrial], split: Split) -> Stack:
    """Return what the members predicted of a split of their own, as it is stored."""
    found: list[Predictions] = [read_predictions(member.paths.predictions, split) for member in members]
    first = found[0]
    return Stack(first.index, first.label, np.stack([each.probability for each in found]), first.group)


def without_learnt(external: Stack, seen: Seen) -> Stack:
    """Return the external images that repeat none of train or val; all of them where every one does.

    What the models learnt from tells nothing of other data. Where that is all, it is shown, and said.
    """
    new = ~np.isin(external.index, seen.rows(*LEARNT))
    return external.take(new) if new.any() else external


def compare_scores(stacks: Mapping[str, Stack], task: Task, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Return a row per metric: on each data with its interval, and external minus internal where both are there."""
    # A class that the other source lacks leaves a score undefined, which its dash says.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return pd.DataFrame(_scores(stacks, task, metrics))


def _scores(stacks: Mapping[str, Stack], task: Task, metrics: Sequence[Metric]) -> Iterator[dict[str, Any]]:
    draws = {}
    # Other draws for other images: the difference is not paired.
    for seed, (name, stack) in enumerate(stacks.items()):
        draws[name] = Draws(task.strata(stack.label), seed=seed, groups=stack.group)
    for metric in metrics:
        row: dict[str, Any] = {"metric": metric.name}
        measured: dict[str, LevelScores] = {}
        for name, stack in stacks.items():
            measured[name] = measure_level(stack, task, metric, draws[name])
            value = score_interval(measured[name], bounds=metric.bounds)
            row |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        if len(measured) == len((INTERNAL, EXTERNAL)):
            gap = mean_difference([measured[EXTERNAL]], [measured[INTERNAL]], paired=False)
            row |= {"difference": gap.estimate, "difference_low": gap.low, "difference_high": gap.high}
        yield row
