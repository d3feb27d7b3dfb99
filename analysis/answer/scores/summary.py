"""Means and sample standard deviations over the seeds: of cells, and of the ensembles beneath them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.analysis.answer.scores.cells import ENSEMBLE, SINGLE, Question
from raypatch.analysis.frames.columns import score_column

MODEL_COSTS = ("gflops", "gflops_without_attention", "parameters", "tokens")
RUN_COSTS = ("train_seconds", "images_per_second", "peak_memory_gb")


def measures_of(frame: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Return the columns that are averaged: scores on both splits, costs of the model and of the run."""
    names = []
    for split in ("test", "val"):
        for metric in ("loss", *metrics):
            names.append(score_column(split, metric))
    names += [*MODEL_COSTS, *RUN_COSTS]
    return [name for name in names if name in frame]


def summarize(
    trials: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str], *, median: bool = False
) -> pd.DataFrame:
    """Return one row per distinct `keys`: seeds (count), `<measure>_mean` and `<measure>_std` of each measure.

    The standard deviation is the sample's (n - 1), NaN for one seed. A score that is undefined for
    one seed is undefined for the group, rather than averaged over fewer seeds in silence.
    median: also `<measure>_median`.
    """
    measures = measures_of(trials, metrics)
    groups = trials.groupby(list(keys), sort=False, dropna=False)
    undefined = groups[measures].count().lt(groups.size(), axis=0)
    mean = groups[measures].mean().mask(undefined)
    std = groups[measures].std(ddof=1).mask(undefined)
    columns = {"seeds": groups.size()}
    for name in measures:
        columns[f"{name}_mean"] = mean[name]
        columns[f"{name}_std"] = std[name]
        if median:
            columns[f"{name}_median"] = groups[name].median().mask(undefined[name])
    return pd.DataFrame(columns).reset_index()


def summarize_cells(
    question: Question,
    trials: pd.DataFrame,
    metrics: Sequence[str],
    *,
    recipe: Sequence[str] = (),
    ensembles: pd.DataFrame | None = None,
    median: bool = False,
) -> pd.DataFrame:
    """Return `summarize` of each cell of `trials`, with level, level_rank and kind.

    recipe: hyperparameters that tell cells apart. ensembles: rows as `score_ensembles` gives them,
    beneath the series of their members; their level names the members, their rank comes after all
    levels.
    """
    own = [*recipe, "level", "level_rank", "kind"]
    cells = summarize(trials.assign(kind=SINGLE), [*question.series, *own], metrics, median=median)
    if ensembles is not None and not ensembles.empty:
        last = ensembles.assign(level_rank=len(question.factor.levels), kind=ENSEMBLE)
        extra = summarize(last, [*question.series, "level", "level_rank", "kind"], metrics, median=median)
        cells = pd.concat([cells, extra.reindex(columns=cells.columns)], ignore_index=True)
    # By level within each series; the series stay in the order in which they appear.
    series = cells.groupby(question.series, sort=False, dropna=False).ngroup()
    order = pd.DataFrame({"series": series, "rank": cells["level_rank"]})
    order = order.sort_values(["series", "rank"], kind="stable")
    return cells.loc[order.index].reset_index(drop=True)


def singles(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of single models."""
    return cells[cells["kind"] == SINGLE]


def mark_best(means: pd.Series, kinds: pd.Series, *, lower: bool = False) -> NDArray[np.bool_]:
    """Mark the best mean of the single models and any ensemble that is better; NaN is never marked."""
    values = means.to_numpy(float)
    values = -values if lower else values
    single = (kinds == SINGLE).to_numpy()
    best = np.nanmax(values[single], initial=-np.inf)
    marks: NDArray[np.bool_] = np.where(single, values == best, values > best)
    return marks
