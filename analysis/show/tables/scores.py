"""The tables of scores: every cell with its costs, and one metric with a column per level."""

from collections.abc import Container, Hashable, Sequence
from typing import Any

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.scores.cells import DATASET_KEYS, ENSEMBLE, Question
from raypatch.analysis.answer.scores.summary import mark_best, singles
from raypatch.analysis.show.tables.table import Cell, Row, Table, name_cells, text_cells
from raypatch.analysis.wording import score_with_interval, significant
from raypatch.factors import field_heading
from raypatch.tasks import Metric

GFLOPS_NOTE = "GFLOPs: 2 × multiply-accumulates per image; an ensemble costs the sum of its members."


NO_BETTER = "†"
"""Stands behind the scores of a model that is no better than always saying the most frequent class."""


def scores_note(question: Question, cells: pd.DataFrame) -> str:
    """Return what the cells of a table of scores are."""
    shown = "median" if any(str(name).endswith("_median") for name in cells) else "mean"
    note = (
        f"Percent on the test split, {shown} ± sample standard deviation over seeds, and the 95 % interval"
        " of the mean for other test images and other seeds; with a single seed no deviation, and an"
        f" interval for other images alone. Bold: the best {question.factor.label} of the dataset, and"
        " an ensemble above it."
    )
    if "no_better" in cells and cells["no_better"].eq(other=True).any():
        note += (
            f" {NO_BETTER}: not shown to be better than always saying the most frequent class, by balanced accuracy."
        )
    return note


def main_table(findings: Findings) -> Table:
    """Return every level of every series with all scores, the ensemble beneath."""
    title = f"Test scores by dataset and {findings.factor.label}"
    return _long_table("main", title, findings, findings.cells, [])


def recipes_table(findings: Findings) -> Table | None:
    """Return the same for every recipe; None where no hyperparameter was tuned."""
    if findings.recipes.empty:
        return None
    tuned = list(findings.question.tuned)
    return _long_table("recipes", "Every configuration", findings, findings.recipes, tuned)


def _long_table(name: str, title: str, findings: Findings, cells: pd.DataFrame, recipe: list[str]) -> Table:
    """A block per series, a row per level or recipe."""
    question = findings.question
    named = ["dataset_label", *question.setting_keys, *recipe, "level"]
    blocks = []
    for _, block in cells.groupby(question.series, sort=False, dropna=False):
        scores = score_rows(block, block["kind"], findings.metrics)
        rows = []
        for row, own_scores in zip(block.to_dict("records"), scores, strict=True):
            names = name_cells(row[key] for key in named)
            gflops = Cell(significant(row["gflops_mean"]))
            no_attention = Cell(significant(row["gflops_without_attention_mean"]))
            rows.append((*names, gflops, no_attention, *own_scores, Cell(str(row["seeds"]))))
        blocks.append(tuple(rows))
    tuned = map(field_heading, recipe)
    names_of_row = ("Dataset", *question.setting_headings, *tuned, findings.factor.heading)
    return Table(
        name=name,
        title=title,
        columns=(*names_of_row, "GFLOPs", "no attention", *findings.metric_headings, "Seeds"),
        blocks=tuple(blocks),
        labels=len(named),
        note=f"{scores_note(question, cells)} {GFLOPS_NOTE}",
        data=cells,
    )


def metric_table(findings: Findings, cells: pd.DataFrame, metric: Metric) -> Table:
    """Return one metric of one dimensionality: a row per series, a column per level, the GFLOPs beneath.

    The GFLOPs are the mean over the datasets, which differ by the classification head alone; they
    are left out where all levels cost the same.
    """
    question = findings.question
    cells = cells.assign(column=_column_names(cells))
    levels = list(cells.sort_values("level_rank", kind="stable")["column"].unique())
    rows = []
    for _, block in cells.groupby(question.series, sort=False, dropna=False):
        rows.append(_series_row(block, levels, question, metric))
    blocks = [tuple(rows)]
    note = scores_note(question, cells)
    if significant_count(singles(cells)) > 1:
        blocks.append((_gflops_row(cells, levels, question),))
        note = f"{note} {GFLOPS_NOTE}"
    dimensions = int(cells["dimensions"].iloc[0])
    scores = [name for name in map(str, cells) if name.startswith(f"test_{metric.name}_")]
    shown = [*DATASET_KEYS, *question.setting_keys, "level", "kind", "seeds", "gflops_mean", *scores]
    return Table(
        name=f"{metric.name}_{dimensions}d",
        title=f"{metric.heading} by {findings.factor.label}, {dimensions}D",
        columns=("Dataset", *question.setting_headings, *levels),
        blocks=tuple(blocks),
        labels=1 + len(question.settings),
        note=note,
        data=cells[shown],
    )


def _series_row(block: pd.DataFrame, levels: Sequence[str], question: Question, metric: Metric) -> Row:
    """The scores of one series; empty where a level has none."""
    scores = {}
    for column, row in zip(block["column"], score_rows(block, block["kind"], [metric]), strict=True):
        scores[column] = row[0]
    first = block.iloc[0]
    names = name_cells(first[["dataset_label", *question.setting_keys]])
    return (*names, *(scores.get(level, Cell("")) for level in levels))


def _gflops_row(cells: pd.DataFrame, levels: Sequence[str], question: Question) -> Row:
    cost = cells.groupby("column")["gflops_mean"].mean()
    unnamed = [""] * len(question.settings)
    return text_cells(["GFLOPs", *unnamed, *map(significant, cost[list(levels)])])


def _column_names(cells: pd.DataFrame) -> pd.Series:
    """The column of each cell: its level; of ensembles one column, whatever their members are."""
    together = cells["kind"] == ENSEMBLE
    names = cells.loc[together, "level"].unique()
    return cells["level"] if len(names) <= 1 else cells["level"].mask(together, "Ensemble")


def significant_count(cells: pd.DataFrame) -> int:
    """Return how many different costs the levels have, as they would be shown."""
    means = cells.groupby("level")["gflops_mean"].mean()
    return len(set(map(significant, means)))


def score_rows(block: pd.DataFrame, kinds: pd.Series, metrics: Sequence[Metric]) -> list[list[Cell]]:
    """Return for each row of a block its cell of every metric; the best of each metric is marked.

    kinds: `single` or `ensemble` of each row; single models are compared with each other alone.
    """
    records = block.to_dict("records")
    rows: list[list[Cell]] = [[] for _ in records]
    for metric in metrics:
        means = block[shown_score(block, metric)]
        marks = mark_best(means, kinds, lower=metric.lower_is_better)
        for cells, record, mark in zip(rows, records, marks, strict=True):
            cells.append(score_cell(record, metric, mark=bool(mark)))
    return rows


def shown_score(columns: Container[Hashable], metric: Metric) -> str:
    """Return the column that is shown: of the median where the study asked for it, else of the mean."""
    median = f"test_{metric.name}_median"
    return median if median in columns else f"test_{metric.name}_mean"


def score_cell(row: dict[Hashable, Any], metric: Metric, *, mark: bool) -> Cell:
    """Return the cell of a score, mean ± deviation (interval); no interval where none was computed."""
    score = f"test_{metric.name}"
    undefined = float("nan")
    low = row.get(f"{score}_low", undefined)
    high = row.get(f"{score}_high", undefined)
    shown = score_with_interval(row[shown_score(row, metric)], row[f"{score}_std"], low, high)
    # Recipes and ensembles are not compared with the majority: no such column, or NaN, which counts as true.
    return Cell(f"{shown} {NO_BETTER}" if row.get("no_better") is True else shown, mark)
