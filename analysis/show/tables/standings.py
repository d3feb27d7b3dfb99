"""Tables of how levels stand over the datasets: averages, quartiles, counts of ranks, steps that improved."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.scores.summary import singles
from raypatch.analysis.answer.standings import (
    ALL,
    average_over_datasets,
    quartiles_of,
    rank_counts,
    step_counts,
)
from raypatch.analysis.show.tables.table import Cell, Row, Table, text_cells
from raypatch.analysis.wording import UNDEFINED, capitalize, percent, plural, points

SHOWN_DATASETS = "Dataset"
"""The part of the counts that is one per dataset: those stand in the CSV alone."""


def averages_table(findings: Findings) -> Table | None:
    """Return the mean over the datasets: a row per setting, a column per level; None below two datasets."""
    question, metric = findings.question, findings.metric
    averages = average_over_datasets(singles(findings.cells), question, metric)
    if averages.empty:
        return None
    levels = sorted(averages["level"].unique(), key=findings.factor.rank)
    keys = ["dimensions", *question.setting_keys]
    rows: list[Row] = []
    overall: list[Row] = []
    for _, part in averages.groupby(keys, sort=False):
        is_overall = bool(question.settings) and (part[question.setting_keys] == ALL).all(axis=None)
        (overall if is_overall else rows).append(_average_row(part, levels, findings))
    return Table(
        name="averages",
        title=f"Mean over the datasets: {metric.label} by {findings.factor.label}",
        columns=("Data", *question.setting_headings, *levels, "Datasets"),
        blocks=(tuple(rows), tuple(overall)) if overall else (tuple(rows),),
        labels=1 + len(question.settings),
        note=(
            "Percent on the test split, mean over the datasets that have every level. ± is the mean of the datasets'"
            " standard deviations over seeds, as papers give it, and no deviation of the mean. Bold: the best of the"
            " row."
        ),
        data=averages,
    )


def _average_row(part: pd.DataFrame, levels: list[str], findings: Findings) -> Row:
    known = part.set_index("level")
    best = known["mean"].min() if findings.metric.lower_is_better else known["mean"].max()
    first = part.iloc[0]
    names = [f"{first['dimensions']}D", *(str(first[name]) for name in findings.question.setting_keys)]
    cells = []
    for level in levels:
        if level in known.index:
            mean, std = float(known["mean"][level]), float(known["std"][level])
            cells.append(Cell(percent(mean, std), best=bool(mean == best)))
        else:
            cells.append(Cell(""))
    return (*text_cells(names), *cells, Cell(str(first["datasets"])))


def quartiles_table(findings: Findings) -> Table | None:
    """Return mean and quartiles over the datasets by level; None below two datasets."""
    conclusions = (*findings.overall, *findings.conclusions)
    quartiles = quartiles_of(conclusions, findings.question, findings.metric)
    if quartiles.empty:
        return None
    blocks = []
    for _, part in quartiles.groupby("label", sort=False):
        blocks.append(tuple(map(_quartile_row, part.to_dict("records"))))
    return Table(
        name="quartiles",
        title=f"Spread over the datasets: {findings.metric.label} by {findings.factor.label}",
        columns=("Data", findings.factor.heading, "Mean", "25 %", "Median", "75 %", "Datasets"),
        blocks=tuple(blocks),
        labels=2,
        note=(
            "Percent on the test split: quartiles of the datasets' scores (mean over seeds), over the datasets that"
            " have every level."
        ),
        data=quartiles,
    )


def _quartile_row(row: dict[Hashable, Any]) -> Row:
    scores = [percent(row[name]) for name in ("mean", "q25", "q50", "q75")]
    return text_cells([row["label"], row["level"], *scores, row["series"]])


def rank_counts_table(findings: Findings) -> Table | None:
    """Return how often each level has each of the first ranks; None below two datasets or two levels."""
    counts = rank_counts(singles(findings.cells), findings.question, findings.metric)
    if counts.empty:
        return None
    shown = counts[counts["part"] != SHOWN_DATASETS]
    ranks = [name for name in map(str, counts) if name.startswith("rank_")]
    blocks = []
    for _, part in shown.groupby(["dimensions", "part", "at"], sort=False):
        blocks.append(tuple(_count_row(row, ranks) for row in part.to_dict("records")))
    counted = "datasets" if not findings.question.settings else "datasets in each setting"
    return Table(
        name="rank_counts",
        title=f"How often each {findings.factor.label} is first, second and so on",
        columns=("Over", findings.factor.heading, "Mean rank", *(f"{name[5:]}." for name in ranks), "Of"),
        blocks=tuple(blocks),
        labels=2,
        note=(
            f"Ranks by {findings.metric.label} on the test split, mean over seeds, 1 the best, over the {counted}"
            f" that have every level. Equal scores count for the better rank.{_also_by_dataset(counts)}"
        ),
        data=counts,
    )


def _count_row(row: dict[Hashable, Any], ranks: list[str]) -> Row:
    counts = [row[name] for name in ranks]
    shown = [f"{row['mean_rank']:.2f}", *map(_whole, counts), row["series"]]
    return text_cells([_part_name(row), row["level"], *shown])


def _whole(count: float) -> str:
    """A count as text; 2D and 3D may have another number of levels, and then ranks that the other has not."""
    return "" if pd.isna(count) else f"{count:.0f}"


def _part_name(row: dict[Hashable, Any]) -> str:
    return f"{row['dimensions']}D, {row['at'] or ALL}"


def _also_by_dataset(counts: pd.DataFrame) -> str:
    return " The CSV also counts each dataset by itself." if (counts["part"] == SHOWN_DATASETS).any() else ""


def steps_table(findings: Findings) -> Table | None:
    """Return in how many datasets each step of an ordered factor improves the score; None for another factor."""
    counts = step_counts(singles(findings.cells), findings.question, findings.metric)
    if counts.empty:
        return None
    shown = counts[counts["part"] != SHOWN_DATASETS]
    blocks = []
    for _, part in shown.groupby(["dimensions", "part", "at"], sort=False):
        blocks.append(tuple(map(_step_row, part.to_dict("records"))))
    factor = findings.factor
    each = "dataset" if not findings.question.settings else "dataset in each setting"
    return Table(
        name="steps",
        title=f"What each step of {factor.label} improves",
        columns=("Over", "Step", "Improved", "Equal", "Of", "Share", "Median gain"),
        blocks=tuple(blocks),
        labels=2,
        note=(
            f"Counted is each {each} that has both {plural(factor.label)}: improved where"
            f" {findings.metric.label} on the test split, mean over seeds, is better after the step. Gain in percentage"
            f" points.{_also_by_dataset(counts)}"
        ),
        data=counts,
    )


def _step_row(row: dict[Hashable, Any]) -> Row:
    share = UNDEFINED if pd.isna(row["share"]) else f"{100 * row['share']:.0f} %"
    step = f"{row['first']} → {row['second']}"
    counts = [row["improved"], row["equal"], row["series"], share, points(row["median"])]
    return text_cells([capitalize(_part_name(row)), step, *counts])
