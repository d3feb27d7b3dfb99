"""The tables of scores: every cell with its costs, and one metric with a column per level."""

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from raypatch.analysis.answer.cells import DATASET_KEYS, ENSEMBLE, Question
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.summary import mark_best, singles
from raypatch.analysis.show.tables.table import Cell, Table
from raypatch.analysis.wording import score_with_interval, significant
from raypatch.factors import field_heading
from raypatch.tasks import Metric

GFLOPS_NOTE = "GFLOPs: 2 × multiply-accumulates per image; an ensemble costs the sum of its members."


def scores_note(question: Question) -> str:
    """Return what the cells of a table of scores are."""
    return (
        "Percent on the test split, mean ± sample standard deviation over seeds, and the 95 % interval of the mean for"
        " other test images and other seeds; with a single seed no deviation, and an interval for other images alone."
        f" Bold: the best {question.factor.label} of the dataset, and an ensemble above it."
    )


def main_table(findings: Findings) -> Table:
    """Return every level of every series with all scores, the ensemble beneath."""
    title = f"Test scores by dataset and {findings.factor.label}"
    return _long_table("main", title, findings, findings.cells, [])


def recipes_table(findings: Findings) -> Table | None:
    """Return the same for every recipe; None where no hyperparameter was tuned."""
    if findings.recipes.empty:
        return None
    return _long_table("recipes", "Every configuration", findings, findings.recipes, list(findings.question.tuned))


def _long_table(name: str, title: str, findings: Findings, cells: pd.DataFrame, recipe: list[str]) -> Table:
    """A block per series, a row per level or recipe."""
    question, metrics = findings.question, findings.metrics
    named = ["dataset_label", *question.setting_keys, *recipe, "level"]
    blocks = []
    for _, block in cells.groupby(question.series, sort=False, dropna=False):
        marks = {metric.name: _marks(block, metric) for metric in metrics}
        rows = []
        for place, row in enumerate(block.to_dict("records")):
            costs = [Cell(significant(row[f"{cost}_mean"])) for cost in ("gflops", "gflops_without_attention")]
            scores = [score_cell(row, metric, mark=bool(marks[metric.name][place])) for metric in metrics]
            rows.append((*(name_cell(row[key]) for key in named), *costs, *scores, Cell(str(row["seeds"]))))
        blocks.append(tuple(rows))
    settings = [setting.heading for setting in question.settings]
    tuned = [field_heading(field) for field in recipe]
    headings = [metric.heading for metric in metrics]
    return Table(
        name=name,
        title=title,
        columns=("Dataset", *settings, *tuned, findings.factor.heading, "GFLOPs", "no attention", *headings, "Seeds"),
        blocks=tuple(blocks),
        labels=len(named),
        note=f"{scores_note(question)} {GFLOPS_NOTE}",
        data=cells,
    )


def metric_table(findings: Findings, cells: pd.DataFrame, metric: Metric) -> Table:
    """Return one metric of one dimensionality: a row per series, a column per level, the GFLOPs beneath.

    The GFLOPs are the mean over the datasets, which differ by the classification head alone; they are left out where
    all levels cost the same.
    """
    question = findings.question
    headed = _column_names(cells)
    ordered = cells.assign(column=headed).sort_values("level_rank", kind="stable")
    levels = list(dict.fromkeys(ordered["column"]))
    cells = cells.assign(column=headed)
    rows = []
    for _, block in cells.groupby(question.series, sort=False, dropna=False):
        records = block.to_dict("records")
        shown = {}
        for row, mark in zip(records, _marks(block, metric), strict=True):
            shown[row["column"]] = score_cell(row, metric, mark=bool(mark))
        names = [records[0][key] for key in ("dataset_label", *question.setting_keys)]
        rows.append((*map(name_cell, names), *(shown.get(level, Cell("")) for level in levels)))
    blocks = [tuple(rows)]
    cost = cells.groupby("column")["gflops_mean"].mean()
    costs_differ = significant_count(singles(cells)) > 1
    if costs_differ:
        empty = [Cell("") for _ in question.settings]
        blocks.append(((Cell("GFLOPs"), *empty, *(Cell(significant(cost[level])) for level in levels)),))
    dimensions = int(cells["dimensions"].iloc[0])
    scores = [name for name in map(str, cells) if name.startswith(f"test_{metric.name}_")]
    return Table(
        name=f"{metric.name}_{dimensions}d",
        title=f"{metric.heading} by {findings.factor.label}, {dimensions}D",
        columns=("Dataset", *(setting.heading for setting in question.settings), *levels),
        blocks=tuple(blocks),
        labels=1 + len(question.settings),
        note=f"{scores_note(question)} {GFLOPS_NOTE}" if costs_differ else scores_note(question),
        data=cells[[*DATASET_KEYS, *question.setting_keys, "level", "kind", "seeds", "gflops_mean", *scores]],
    )


def _column_names(cells: pd.DataFrame) -> pd.Series:
    """The column of each cell: its level; of ensembles one column, whatever their members are."""
    together = cells["kind"] == ENSEMBLE
    names = cells.loc[together, "level"].unique()
    return cells["level"] if len(names) <= 1 else cells["level"].mask(together, "Ensemble")


def significant_count(cells: pd.DataFrame) -> int:
    """Return how many different costs the levels have, as they would be shown."""
    means = cells.groupby("level")["gflops_mean"].mean()
    return len({significant(mean) for mean in means})


def _marks(block: pd.DataFrame, metric: Metric) -> Sequence[bool]:
    means = block[f"test_{metric.name}_mean"]
    return list(mark_best(means, block["kind"], lower=metric.lower_is_better))


def score_cell(row: dict[Hashable, Any], metric: Metric, *, mark: bool) -> Cell:
    """Return the cell of a score, mean ± deviation (interval); no interval where none was computed."""
    undefined = float("nan")
    bounds = [row.get(f"test_{metric.name}_{bound}", undefined) for bound in ("low", "high")]
    text = score_with_interval(row[f"test_{metric.name}_mean"], row[f"test_{metric.name}_std"], *bounds)
    return Cell(text, mark)


def name_cell(value: object) -> Cell:
    """Return the cell of a name or of a hyperparameter's value."""
    return Cell(f"{value:g}" if isinstance(value, float) else str(value))
