"""How the levels of a factor stand over the datasets: averages, counts of ranks, steps that improved, quartiles."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from raypatch.analysis.answer.conclusions import Conclusion, scores_by_level
from raypatch.analysis.answer.scores.averages import common_settings
from raypatch.analysis.answer.scores.cells import Question
from raypatch.analysis.statistics.standings import count_ranks, count_steps, find_quartiles
from raypatch.tasks import Metric

LEAST_DATASETS = 2
ALL = "all"


def average_over_datasets(cells: pd.DataFrame, question: Question, metric: Metric) -> pd.DataFrame:
    """Return one row per setting and level: the mean over the datasets that have every level there.

    cells: of single models, as `summarize_cells`. Columns: dimensions, the settings, level, mean,
    std and datasets (count). std is the mean of the datasets' deviations over seeds, as published
    tables of averages show it; it is no deviation of the mean. A setting with under two such
    datasets is left out. Where there are several settings, rows with `all` in their columns hold
    the mean over the settings that all levels have.
    """
    parts = []
    keys = ["dimensions", *question.setting_keys]
    for key, part in cells.groupby(keys, sort=False, dropna=False):
        parts.append(_average(part, question, metric, dict(zip(keys, key, strict=True))))
    if question.settings:
        for dimensions, part in cells.groupby("dimensions"):
            common = common_settings(part, question)
            if common.groupby(question.setting_keys, dropna=False).ngroups > 1:
                named: dict[str, Any] = dict.fromkeys(question.setting_keys, ALL)
                parts.append(_average(common, question, metric, {"dimensions": dimensions, **named}))
    known = [part for part in parts if len(part)]
    columns = [*keys, "level", "mean", "std", "datasets"]
    return pd.concat(known, ignore_index=True)[columns] if known else pd.DataFrame(columns=columns)


def _average(cells: pd.DataFrame, question: Question, metric: Metric, named: dict[str, Any]) -> pd.DataFrame:
    """The rows of one setting, or of several whose cells all count alike; none for too few datasets."""
    score = f"test_{metric.name}"
    means = cells.pivot(index=question.series, columns="level", values=f"{score}_mean").dropna()
    datasets = means.index.get_level_values("dataset").nunique()
    if datasets < LEAST_DATASETS:
        return pd.DataFrame()
    spreads = cells.pivot(index=question.series, columns="level", values=f"{score}_std").loc[means.index]
    levels = sorted(map(str, means.columns), key=question.factor.rank)
    # One seed has no deviation, and a mean over fewer datasets than the score's would not be its own.
    rows = pd.DataFrame({"mean": means.mean(), "std": spreads.mean(skipna=False)}).loc[levels]
    return rows.rename_axis("level").reset_index().assign(datasets=datasets, **named)


def rank_counts(cells: pd.DataFrame, question: Question, metric: Metric) -> pd.DataFrame:
    """Return `count_ranks` of the series as a whole, at each level of each setting, and of each dataset.

    cells: of single models. Columns: dimensions, part (`all`, or the heading of what is held), at
    (its level), level, and those of `count_ranks`. Empty below two datasets.
    """
    return _by_part(cells, question, metric, lambda scores: count_ranks(scores).rename_axis("level").reset_index())


def step_counts(cells: pd.DataFrame, question: Question, metric: Metric) -> pd.DataFrame:
    """Return `count_steps` of an ordered factor by the same parts as `rank_counts`; empty for another factor."""
    if not question.factor.ordered:
        return pd.DataFrame()
    return _by_part(cells, question, metric, count_steps)


def _by_part(
    cells: pd.DataFrame, question: Question, metric: Metric, count: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    frames = []
    for dimensions, block in cells.groupby("dimensions"):
        if block["dataset"].nunique() < LEAST_DATASETS or block["level"].nunique() < 2:
            continue
        for part, at, own in _parts(block, question):
            scores = _series_scores(own, question, metric)
            frames.append(count(scores).assign(dimensions=dimensions, part=part, at=at))
    if not frames:
        return pd.DataFrame()
    counted = pd.concat(frames, ignore_index=True)
    counted = counted[counted["series"] > 0].reset_index(drop=True)
    front = ["dimensions", "part", "at"]
    return counted[[*front, *counted.columns.drop(front)]]


def _parts(cells: pd.DataFrame, question: Question) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Everything, then what is at each level of each setting, then each dataset."""
    yield ALL, "", cells
    for setting in question.settings:
        present = sorted(map(str, cells[setting.name].unique()), key=setting.rank)
        for level in present:
            yield setting.heading, setting.phrase(level), cells[cells[setting.name] == level]
    if question.settings:
        for label, own in cells.groupby("dataset_label", sort=False):
            yield "Dataset", str(label), own


def _series_scores(cells: pd.DataFrame, question: Question, metric: Metric) -> pd.DataFrame:
    """The scores by series (rows) and level (columns, in order), signed so that higher is better."""
    wide = cells.pivot(index=question.series, columns="level", values=f"test_{metric.name}_mean")
    levels = sorted(map(str, wide.columns), key=question.factor.rank)
    wide = wide[levels]
    return -wide if metric.lower_is_better else wide


def quartiles_of(conclusions: Sequence[Conclusion], question: Question, metric: Metric) -> pd.DataFrame:
    """Return `find_quartiles` over the datasets of each conclusion: label, level, mean, q25, q50, q75, series.

    A conclusion with under two datasets that have every level is left out.
    """
    frames = []
    for conclusion in conclusions:
        scores = scores_by_level(conclusion.cells, f"test_{metric.name}_mean", question.factor).dropna()
        if len(scores) >= LEAST_DATASETS:
            found = find_quartiles(scores).rename_axis("level").reset_index()
            found.insert(0, "label", conclusion.label)
            frames.append(found)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def dataset_scores(conclusion: Conclusion, question: Question, metric: Metric) -> pd.DataFrame:
    """Return the scores of a conclusion's datasets that have every level: dataset_label, level, score."""
    wide = scores_by_level(conclusion.cells, f"test_{metric.name}_mean", question.factor).dropna()
    return wide.reset_index().melt("dataset_label", var_name="level", value_name="score")
