"""The tables of the study: mean and sample standard deviation over seeds by dataset and patch size."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.analysis.answer.cells import DATASET_KEYS, finished, recipe_fields, series_keys
from raypatch.analysis.load import CONFIG_COLUMNS, METRICS, SCORES
from raypatch.analysis.show.render import Cell, Table, percent, significant

COSTS = ("gflops", "gflops_without_attention", "parameters", "tokens")
SPEEDS = ("train_seconds", "images_per_second", "peak_memory_gb")
MEASURES = (*(f"{split}_{name}" for split in ("test", "val") for name in SCORES), *COSTS, *SPEEDS)

SCORES_NOTE = (
    "Percent on the test split, mean ± sample standard deviation over seeds (none for a single seed)."
    " Bold: the best patch size of the dataset, and an ensemble above it."
)
GFLOPS_NOTE = "GFLOPs: 2 × multiply-accumulates per image; an ensemble costs the sum of its members."


def summarize(trials: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return one row per distinct `keys`: seeds (count) and `<measure>_mean`, `<measure>_std` of each of MEASURES.

    The standard deviation is the sample's (n - 1), NaN for one seed. A figure that is undefined for one seed is
    undefined for the group, rather than averaged over fewer seeds in silence.
    """
    measures = [name for name in MEASURES if name in trials]
    groups = trials.groupby(list(keys), sort=False, dropna=False)
    undefined = groups[measures].count().lt(groups.size(), axis=0)
    mean, std = groups[measures].mean().mask(undefined), groups[measures].std(ddof=1).mask(undefined)
    figures = {f"{name}_{part}": frame[name] for name in measures for part, frame in (("mean", mean), ("std", std))}
    return pd.DataFrame({"seeds": groups.size()} | figures).reset_index()


def summarize_cells(trials: pd.DataFrame, ensembles: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return `summarize` of each dataset, recipe and patch size, with a column `patch` for people.

    ensembles: rows as `score_ensembles` gives them, one per series and seed, with a `patch` column that names the
    members (`1+2+4`); their patch_size becomes 0. Sorted by series, large patches first, ensembles last.
    """
    trials = finished(trials)
    fields = recipe_fields(trials)
    cells = summarize(trials, [*DATASET_KEYS, *fields, "patch_size"])
    cells.insert(len(DATASET_KEYS) + len(fields), "patch", cells["patch_size"].astype(str))
    if ensembles is not None and not ensembles.empty:
        known = [*series_keys(fields), "patch_size", "patch"]
        extra = summarize(ensembles.assign(patch_size=0), known).reindex(columns=cells.columns)
        cells = pd.concat([cells, extra], ignore_index=True)
    order = [*series_keys(fields), "patch_size"]
    return cells.sort_values(order, ascending=[True] * (len(order) - 1) + [False], ignore_index=True)


def mark_best(means: pd.Series, singles: pd.Series) -> NDArray[np.bool_]:
    """Mark the highest mean of the single models and any ensemble above it; NaN is never marked."""
    values, single = means.to_numpy(float), singles.to_numpy(bool)
    best = np.nanmax(values[single], initial=-np.inf)
    marks: NDArray[np.bool_] = np.where(single, values == best, values > best)
    return marks


def shown_fields(cells: pd.DataFrame) -> list[str]:
    """Return the recipe fields that `summarize_cells` found to differ and therefore made columns."""
    return [name for name in CONFIG_COLUMNS if name in cells and name not in ("dataset", "patch_size")]


def main_table(cells: pd.DataFrame) -> Table:
    """Return the long table of `summarize_cells`: a block per series, a row per patch size, its ensemble beneath."""
    fields = shown_fields(cells)
    blocks = []
    for _, block in cells.groupby(series_keys(fields), sort=False, dropna=False):
        marks = {name: mark_best(block[f"test_{name}_mean"], block["patch_size"] > 0) for name in METRICS}
        rows = []
        for place, row in enumerate(block.to_dict("records")):
            names = [row["dataset_label"], *(row[name] for name in fields), row["patch"]]
            costs = [row[f"{name}_mean"] for name in COSTS[:2]]
            scores = [_score_cell(row, name, marks[name][place]) for name in METRICS]
            rows.append((*map(_name_cell, names), *_cost_cells(costs), *scores, Cell(str(row["seeds"]))))
        blocks.append(tuple(rows))
    return Table(
        name="main",
        title="Test scores by dataset and patch size",
        columns=("Dataset", *fields, "Patch", "GFLOPs", "no attention", *METRICS.values(), "Seeds"),
        blocks=tuple(blocks),
        labels=2 + len(fields),
        note=f"{SCORES_NOTE} {GFLOPS_NOTE}",
        data=cells,
    )


def metric_table(cells: pd.DataFrame, metric: str) -> Table:
    """Return the wide table of one metric: a row per series, a column per patch size, the GFLOPs beneath.

    cells: rows of one `dimensions`, one recipe per series and patch size. The GFLOPs are the mean over the datasets,
    which differ by the classification head alone.
    """
    fields = shown_fields(cells)
    patches = list(dict.fromkeys(cells.sort_values("patch_size", ascending=False, kind="stable")["patch"]))
    rows = []
    for _, block in cells.groupby(series_keys(fields), sort=False, dropna=False):
        marks = mark_best(block[f"test_{metric}_mean"], block["patch_size"] > 0)
        records = block.to_dict("records")
        shown = {row["patch"]: _score_cell(row, metric, mark) for row, mark in zip(records, marks, strict=True)}
        names = [records[0][name] for name in ("dataset_label", *fields)]
        rows.append((*map(_name_cell, names), *(shown.get(patch, Cell("")) for patch in patches)))
    gflops = cells.groupby("patch")["gflops_mean"].mean()
    cost = (Cell("GFLOPs"), *(Cell("") for _ in fields), *_cost_cells([gflops[patch] for patch in patches]))
    figures = [name for name in map(str, cells) if name.startswith(f"test_{metric}_")]
    dimensions = int(cells["dimensions"].iloc[0])
    return Table(
        name=f"{metric}_{dimensions}d",
        title=f"{METRICS[metric]} by patch size, {dimensions}D",
        columns=("Dataset", *fields, *patches),
        blocks=(tuple(rows), (cost,)),
        labels=1 + len(fields),
        note=f"{SCORES_NOTE} {GFLOPS_NOTE}",
        data=cells[[*DATASET_KEYS, *fields, "patch", "seeds", "gflops_mean", *figures]],
    )


def _score_cell(row: dict[Hashable, Any], metric: str, best: bool) -> Cell:
    return Cell(percent(row[f"test_{metric}_mean"], row[f"test_{metric}_std"]), bool(best))


def _cost_cells(values: Sequence[float]) -> tuple[Cell, ...]:
    return tuple(Cell(significant(value)) for value in values)


def _name_cell(value: object) -> Cell:
    return Cell(f"{value:g}" if isinstance(value, float) else str(value))
